"""Answers from what a refinement keeps, read a second time, from a real server."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import numpy as np
import pytest

from cloud_service.refinement import Evidence, Needs, Prompt, Refinery
from cloud_service.served import Phase
from cloud_service.sessions import refining
from model_runtime.core import Chunk, Engine
from model_runtime.testing import ScriptedEngine
from tests.cloud_service.endless import slow_engine, talkative
from tests.cloud_service.refinement.asked import (
    BODY,
    FLAT,
    PASSES,
    PROMPT,
    QUESTION,
    TEXT,
    Scripted,
    Shy,
    first_line,
    kinds,
)
from wire_protocol.messages import (
    Accepted,
    ChatMessage,
    Draining,
    Error,
    Extend,
    Finished,
    Generate,
    Hello,
    Refine,
    Refinement,
    Rejected,
    Sampling,
    Stop,
    Tokens,
    Welcome,
)

WISH = Refine(0.25, protected=((len(BODY), len(PROMPT)),), reread=True)
LOOKS = Needs(layers=(0,), prompt_rows=4)


class Waiting:
    """A scorer that is done when the test says so."""

    def __init__(self) -> None:
        self.go = threading.Event()

    def __call__(self, prompt: Prompt, evidence: Evidence) -> np.ndarray:
        self.go.wait(30)
        return first_line(prompt, evidence)


def kept_of(refinement: Refinement) -> tuple[int, ...]:
    return tuple(token for start, end in refinement.keep for token in PROMPT[start:end])


def said_to(prompt: tuple[int, ...], count: int, engine: Engine | None = None) -> list[int]:
    """What the engine that is served says to a prompt, greedily, by itself."""
    engine = engine or talkative()
    sequence, tokens, said = engine.open(), prompt, list[int]()
    while len(said) < count:
        [result] = engine.forward([Chunk(sequence, tokens)])
        tokens = (int(result.logits[-1].argmax()),)
        said += tokens
    engine.close(sequence)
    return said


def ids_of(messages: list[Any]) -> list[int]:
    return [token for message in messages if isinstance(message, Tokens) for token in message.ids]


@pytest.mark.parametrize("needs", [LOOKS, Needs()], ids=["looks", "looks at nothing"])
async def test_the_answer_is_that_of_the_part_kept_alone(serve, device, needs: Needs) -> None:
    running = serve(refinery=Refinery([Scripted(first_line, needs)], PASSES))
    async with device(running) as one:
        await one.send(Generate("g1", 6, prompt=PROMPT, refine=WISH))
        messages = await one.until_terminal("g1")
    assert kinds(messages) == ["Accepted", "Refinement", *["Tokens"] * 6, "Finished"]
    refinement = messages[1]
    assert (refinement.guard, refinement.final, refinement.reread) == ("passed", True, True)
    kept = kept_of(refinement)
    assert len(kept) < 0.3 * len(PROMPT)
    assert ids_of(messages) == said_to(kept, 6) != said_to(PROMPT, 6)
    assert [message.first for message in messages[2:-1]] == list(range(6))
    assert (messages[-1].reason, messages[-1].usage.output_tokens) == ("grant", 6)
    assert (messages[0].prompt_tokens, messages[-1].usage.prompt_tokens) == (len(PROMPT), len(PROMPT))
    await running.emptied()


async def test_the_whole_prompt_is_read_once_and_the_part_kept_once(serve, device) -> None:
    running = serve(refinery=Refinery([Scripted(first_line, LOOKS)], PASSES), prefix_cache="off")
    async with device(running) as one:
        await one.send(Generate("g1", 3, prompt=PROMPT, refine=WISH))
        messages = await one.until_terminal("g1")
    fed = sum(len(chunk.tokens) for chunks in running.engine.passes for chunk in chunks)
    assert fed == len(PROMPT) + len(kept_of(messages[1])) + 2
    usage = messages[-1].usage
    assert usage.prefill_ms > 0
    assert usage.decode_ms > 0


async def test_a_second_stage_is_not_waited_for(serve, device) -> None:
    running = serve(refine="answer-attention")
    async with device(running) as one:
        await one.send(Generate("g1", 20, prompt=PROMPT, refine=WISH))
        messages = await one.until_terminal("g1")
    stages = [message for message in messages if isinstance(message, Refinement)]
    assert [(stage.stage, stage.final, stage.reread) for stage in stages] == [(1, True, True)]
    assert ids_of(messages) == said_to(kept_of(stages[0]), 20)


async def test_where_the_guard_keeps_all_the_answer_is_that_of_all(serve, device) -> None:
    running = serve(refinery=Refinery([Scripted(first_line, LOOKS)], FLAT))
    async with device(running) as one:
        await one.send(Generate("g1", 4, prompt=PROMPT, refine=WISH))
        messages = await one.until_terminal("g1")
    assert (messages[1].guard, messages[1].reread) == ("flat", False)
    assert ids_of(messages) == said_to(PROMPT, 4)
    # What the look has read is not read again, but for the last token, whose logits are wanted.
    fed = sum(len(chunk.tokens) for chunks in running.engine.passes for chunk in chunks)
    assert fed == len(PROMPT) + 1 + 3


async def test_a_scorer_that_fails_costs_the_answer_nothing(serve, device) -> None:
    running = serve(refinery=Refinery([Scripted(lambda prompt, evidence: 1 / 0, LOOKS)], PASSES))
    async with device(running) as one:
        await one.send(Generate("g1", 4, prompt=PROMPT, refine=WISH))
        messages = await one.until_terminal("g1")
    assert messages[1].guard == "failed"
    assert ids_of(messages) == said_to(PROMPT, 4)


async def test_an_engine_that_shows_nothing(serve, device) -> None:
    running = serve(Shy(answer_length=100_000), refine="auto")
    async with device(running) as one:
        await one.send(Generate("g1", 3, prompt=PROMPT, refine=WISH))
        messages = await one.until_terminal("g1")
    assert kinds(messages) == ["Accepted", "Refinement", *["Tokens"] * 3, "Finished"]
    assert (messages[1].guard, messages[1].reread) == ("unavailable", False)
    assert ids_of(messages) == said_to(PROMPT, 3)


async def test_a_service_that_does_not_score_answers_from_all(serve, device) -> None:
    running = serve(refine="off")
    async with device(running) as one:
        await one.send(Generate("g1", 3, prompt=PROMPT, refine=WISH))
        messages = await one.until_terminal("g1")
    assert (messages[1].guard, messages[1].reread) == ("unavailable", False)
    assert ids_of(messages) == said_to(PROMPT, 3)


async def test_a_scorer_that_never_ends_is_not_waited_for(serve, device, monkeypatch) -> None:
    monkeypatch.setattr(refining, "PATIENCE", 0.05)
    waiting = Waiting()
    running = serve(refinery=Refinery([Scripted(waiting, LOOKS)], PASSES))
    async with device(running) as one:
        await one.send(Generate("g1", 3, prompt=PROMPT, refine=WISH))
        messages = await one.until_terminal("g1")
        waiting.go.set()
    assert kinds(messages) == ["Accepted", "Refinement", *["Tokens"] * 3, "Finished"]
    assert messages[1].guard == "unavailable"
    assert "0.05 s" in messages[1].detail
    assert ids_of(messages) == said_to(PROMPT, 3)
    await running.emptied()


async def between(running: Any, one: Any, until: Any, grant: int = 4) -> Any:
    """A generation that has been looked at, and waits for its scorer."""
    await one.send(Generate("g1", grant, prompt=PROMPT, refine=WISH))
    assert isinstance(await one.receive(), Accepted)
    [served] = [served for session in running.service.connections for served in session._served.values()]
    await until(lambda: served._phase is Phase.BETWEEN)
    return served


async def test_who_stops_while_it_is_scored_is_told_of_the_end(serve, device, until) -> None:
    waiting = Waiting()
    running = serve(refinery=Refinery([Scripted(waiting, LOOKS)], PASSES))
    async with device(running) as one:
        await between(running, one, until)
        await one.send(Stop("g1", "cancelled"))
        [last] = await one.until_terminal("g1")
        assert isinstance(last, Finished)
        assert (last.reason, last.usage.output_tokens, last.usage.prompt_tokens) == ("stopped", 0, len(PROMPT))
        waiting.go.set()
        await one.send(Generate("g1", 1, prompt=PROMPT, refine=WISH))
        assert kinds(await one.until_terminal("g1")) == ["Accepted", "Refinement", "Tokens", "Finished"]
    await running.emptied()


async def test_an_extension_while_it_is_scored_counts(serve, device, until) -> None:
    waiting = Waiting()
    running = serve(refinery=Refinery([Scripted(waiting, LOOKS)], PASSES))
    async with device(running) as one:
        served = await between(running, one, until)
        await one.send(Extend("g1", 7))
        await until(lambda: served._grant == 7)
        waiting.go.set()
        messages = await one.until_terminal("g1")
    assert messages[-1].usage.output_tokens == 7


async def test_a_connection_that_goes_away_while_it_is_scored_leaves_nothing_behind(serve, device, until) -> None:
    waiting = Waiting()
    running = serve(refinery=Refinery([Scripted(waiting, LOOKS)], PASSES))
    async with device(running) as one:
        await between(running, one, until)
    await until(lambda: not running.service.connections)
    passes = len(running.engine.passes)
    waiting.go.set()
    await running.emptied()
    assert len(running.engine.passes) == passes


async def test_a_full_queue_does_not_turn_away_what_was_taken_on(serve, device, until) -> None:
    waiting = Waiting()
    running = serve(talkative(max_sequences=1), refinery=Refinery([Scripted(waiting, LOOKS)], PASSES), queue_depth=0)
    async with device(running) as one, device(running) as other:
        await between(running, one, until)
        await other.send(Generate("long", 200, prompt=PROMPT))
        assert isinstance(await other.receive(), Accepted)
        waiting.go.set()
        assert (await one.until_terminal("g1"))[-1].usage.output_tokens == 4
        assert (await other.until_terminal("long"))[-1].usage.output_tokens == 200


async def test_a_drain_does_not_turn_away_what_was_taken_on(serve, device, until) -> None:
    waiting = Waiting()
    running = serve(slow_engine(), refinery=Refinery([Scripted(waiting, LOOKS)], PASSES), drain_ms=20_000)
    async with device(running) as one, device(running) as other:
        await between(running, one, until)
        # Something else is under way, so that the drain is not over at once.
        await other.send(Generate("long", 4_000, prompt=PROMPT))
        await other.receive()
        running.terminate()
        assert isinstance(await one.receive(), Draining)
        waiting.go.set()
        messages = await one.until_terminal("g1")
        await other.send(Stop("long", "cancelled"))
    assert messages[-1].usage.output_tokens == 4


async def test_an_engine_that_breaks_while_it_is_scored(serve, device, until) -> None:
    class Breaking(ScriptedEngine):
        broken = False

        def forward(self, chunks, cancellation=None):  # type: ignore[no-untyped-def]
            if self.broken:
                raise RuntimeError("the engine broke")
            return super().forward(chunks, cancellation)

    waiting = Waiting()
    engine = Breaking()
    running = serve(engine, refinery=Refinery([Scripted(waiting, LOOKS)], PASSES))
    async with device(running) as one:
        await between(running, one, until)
        engine.broken = True
        waiting.go.set()
        messages = await one.until_terminal("g1")
    assert kinds(messages) == ["Refinement", "Error"]
    assert isinstance(messages[-1], Error)
    assert (messages[-1].code, messages[-1].retriable) == ("engine", True)


async def test_a_deadline_holds_for_both_readings(serve, device, until) -> None:
    waiting = Waiting()
    running = serve(refinery=Refinery([Scripted(waiting, LOOKS)], PASSES))
    async with device(running) as one:
        await one.send(Generate("g1", 4, prompt=PROMPT, refine=WISH, deadline_ms=400.0))
        assert isinstance(await one.receive(), Accepted)
        await asyncio.sleep(0.5)
        waiting.go.set()
        messages = await one.until_terminal("g1")
    assert isinstance(messages[-1], Rejected)
    assert messages[-1].reason == "deadline"
    await running.emptied()


async def test_penalties_are_of_the_whole_prompt(serve, device) -> None:
    """As on the device, which knows the whole of it."""
    running = serve(refinery=Refinery([Scripted(first_line, LOOKS)], PASSES))
    async with device(running) as one:
        plain = Generate("g1", 12, prompt=PROMPT, refine=WISH, sampling=Sampling(repetition_penalty=100.0))
        await one.send(plain)
        messages = await one.until_terminal("g1")
    said = ids_of(messages)
    assert not set(said) & set(PROMPT)
    assert set(said_to(kept_of(messages[1]), 12)) & set(PROMPT)


async def test_where_text_travels(serve, device) -> None:
    chat = (ChatMessage("user", TEXT + QUESTION),)
    running = serve(refine="attention")
    async with device(running, text=True) as one:
        await one.send(Generate("g1", 5, messages=chat, refine=Refine(0.3, reread=True)))
        messages = await one.until_terminal("g1")
    assert (messages[1].unit, messages[1].reread) == ("characters", True)
    data = b"".join(message.data for message in messages if isinstance(message, Tokens))
    assert data
    assert messages[-1].usage.output_tokens == 5


async def test_an_answer_that_is_continued(serve, device) -> None:
    running = serve(refinery=Refinery([Scripted(first_line, LOOKS)], PASSES))
    async with device(running) as one:
        await one.send(Generate("g1", 8, prompt=PROMPT, refine=WISH))
        whole = ids_of(await one.until_terminal("g1"))
        await one.send(Generate("g2", 5, prompt=PROMPT, refine=WISH, output=tuple(whole[:3])))
        messages = await one.until_terminal("g2")
    assert ids_of(messages) == whole[3:]
    assert next(message.first for message in messages if isinstance(message, Tokens)) == 3


@pytest.mark.parametrize(("version", "offered"), [(1, False), (2, False), (3, True)])
async def test_it_is_offered_to_who_can_know_it(serve, device, version: int, offered: bool) -> None:
    running = serve(refine="auto")
    async with device(running, hello=False) as one:
        await one.send(Hello(version, "test"))
        welcome = await one.receive()
    assert isinstance(welcome, Welcome)
    assert ("reread" in welcome.offers) is offered


async def test_it_is_not_offered_where_nothing_scores(serve, device) -> None:
    running = serve(refine="off")
    async with device(running, hello=False) as one:
        await one.send(Hello(3, "test"))
        welcome = await one.receive()
    assert "reread" not in welcome.offers
