"""Refinements as a device gets them, from a real server."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from cloud_service.refinement import Evidence, Needs, Prompt, Refinery
from cloud_service.sessions import refining
from tests.cloud_service.endless import slow_engine
from tests.cloud_service.refinement.asked import (
    BODY,
    FLAT,
    PASSES,
    PROMPT,
    QUESTION,
    TEXT,
    TOKENIZER,
    Scripted,
    Shy,
    first_line,
    kinds,
)
from wire_protocol.messages import Accepted, ChatMessage, Finished, Generate, Refine, Refinement, Rejected, Stop, Tokens

WISH = Refine(0.25, protected=((len(BODY), len(PROMPT)),))


def only_refinement(messages: list[Any]) -> Refinement:
    """Wherever among the tokens it came: neither waits for the other."""
    (found,) = [message for message in messages if isinstance(message, Refinement)]
    return found


def text_of(keep: tuple[tuple[int, int], ...]) -> str:
    return b"".join(TOKENIZER.token_bytes(token) for start, end in keep for token in PROMPT[start:end]).decode()


async def test_the_line_that_is_asked_for_is_kept(serve, device) -> None:
    running = serve(refine="attention", pass_tokens=64)
    async with device(running) as one:
        await one.send(Generate("g1", 4, prompt=PROMPT, refine=WISH))
        messages = await one.until_terminal("g1")
    assert sorted(kinds(messages)[1:-1]) == ["Refinement", *["Tokens"] * 4]
    refinement = only_refinement(messages)
    assert (refinement.stage, refinement.final, refinement.unit) == (1, True, "tokens")
    assert (refinement.guard, refinement.scorer) == ("passed", "attention")
    assert refinement.cost_ms > 0
    assert " the valve is zzzzzzzz.\n" in text_of(refinement.keep)
    assert text_of(refinement.keep).endswith(QUESTION)
    assert sum(end - start for start, end in refinement.keep) <= 0.25 * len(PROMPT)


async def test_the_prompt_goes_through_the_engine_once(serve, device) -> None:
    running = serve(refine="auto", prefix_cache="off")
    async with device(running) as one:
        await one.send(Generate("g1", 3, prompt=PROMPT, refine=WISH))
        await one.until_terminal("g1")
        fed = sum(len(chunk.tokens) for chunks in running.engine.passes for chunk in chunks)
        assert fed == len(PROMPT) + 2
        passes = len(running.engine.passes)
        await one.send(Generate("g2", 3, prompt=PROMPT))
        await one.until_terminal("g2")
    assert all(chunk.tap is None for chunks in running.engine.passes[passes:] for chunk in chunks)


async def test_the_answers_first_tokens_make_a_second_stage(serve, device) -> None:
    running = serve(refine="answer-attention")
    async with device(running) as one:
        await one.send(Generate("g1", 20, prompt=PROMPT, refine=WISH))
        messages = await one.until_terminal("g1")
        await one.send(Generate("g2", 4, prompt=PROMPT, refine=WISH))
        short = await one.until_terminal("g2")
    stages = [message for message in messages if isinstance(message, Refinement)]
    assert [(stage.stage, stage.final, stage.scorer) for stage in stages] == [
        (1, False, "attention"),
        (2, True, "answer-attention"),
    ]
    at = messages.index(stages[1])
    assert sum(isinstance(message, Tokens) for message in messages[:at]) > 1
    only = [message for message in short if isinstance(message, Refinement)]
    assert [(stage.stage, stage.final) for stage in only] == [(1, True)], "the answer cannot get so long"


async def test_a_refinement_alone(serve, device) -> None:
    running = serve(refine="auto", pass_tokens=64)
    async with device(running) as one:
        await one.send(Generate("g1", 0, prompt=PROMPT, refine=WISH))
        messages = await one.until_terminal("g1")
    assert kinds(messages) == ["Accepted", "Refinement", "Finished"]
    assert messages[1].guard == "passed"
    assert messages[1].final
    assert messages[2].reason == "grant"
    assert messages[2].usage.output_tokens == 0
    await running.emptied()


async def test_where_text_travels_spans_are_characters(serve, device) -> None:
    chat = (ChatMessage("system", "Be brief. 東京"), ChatMessage("user", TEXT + QUESTION))
    content = "".join(part.content for part in chat)
    asked = (len(content) - len(QUESTION), len(content))
    running = serve(refine="attention")
    async with device(running, text=True) as one:
        await one.send(Generate("g1", 2, messages=chat, refine=Refine(0.3, protected=((0, 12), asked))))
        messages = await one.until_terminal("g1")
    refinement = only_refinement(messages)
    assert (refinement.unit, refinement.guard) == ("characters", "passed")
    kept = "".join(content[start:end] for start, end in refinement.keep)
    assert kept.startswith("Be brief. 東京")
    assert " the valve is zzzzzzzz.\n" in kept
    assert kept.endswith(QUESTION)
    assert len(kept) < 0.5 * len(content)


def fails(prompt: Prompt, evidence: Evidence) -> Any:
    raise ZeroDivisionError


@pytest.mark.parametrize("needs", [Needs(), Needs(layers=(0,), prompt_rows=4)])
async def test_a_scorer_that_fails_harms_nobody(serve, device, needs) -> None:
    running = serve(refinery=Refinery([Scripted(fails, needs)], PASSES))
    async with device(running) as one:
        await one.send(Generate("g1", 3, prompt=PROMPT, refine=WISH))
        messages = await one.until_terminal("g1")
    refinement = only_refinement(messages)
    assert (refinement.guard, refinement.final) == ("failed", True)
    assert refinement.keep == ((0, len(PROMPT)),)
    assert messages[-1].usage.output_tokens == 3


async def test_the_guard_keeps_a_prompt_whole_and_says_why(serve, device) -> None:
    stages = [
        Scripted(first_line, Needs(layers=(0,), prompt_rows=4)),
        Scripted(fails, Needs(layers=(0,), answer_rows=2)),
    ]
    running = serve(refinery=Refinery(stages, FLAT))
    async with device(running) as one:
        await one.send(Generate("g1", 9, prompt=PROMPT, refine=WISH))
        messages = await one.until_terminal("g1")
    refinement = only_refinement(messages)
    assert (refinement.guard, refinement.final, refinement.keep) == ("flat", True, ((0, len(PROMPT)),))
    assert "best unit" in refinement.detail


async def test_without_a_scorer_the_whole_prompt_is_kept_at_once(serve, device) -> None:
    running = serve(refine="off")
    async with device(running) as one:
        await one.send(Generate("g1", 2, prompt=PROMPT, refine=WISH))
        messages = await one.until_terminal("g1")
    refinement = messages[1]
    assert isinstance(refinement, Refinement)
    assert (refinement.guard, refinement.final, refinement.keep) == ("unavailable", True, ((0, len(PROMPT)),))
    async with device(running, text=True) as one:
        await one.send(Generate("g1", 0, messages=(ChatMessage("user", "Where?"),), refine=Refine(0.5)))
        messages = await one.until_terminal("g1")
    assert (messages[1].unit, messages[1].keep) == ("characters", ((0, 6),))


async def test_a_slow_scorer_holds_up_no_token_but_the_end(serve, device, monkeypatch) -> None:
    go = threading.Event()

    def waits(prompt: Prompt, evidence: Evidence) -> np.ndarray:
        go.wait(30)
        return first_line(prompt, evidence)

    running = serve(refinery=Refinery([Scripted(waits, Needs(layers=(0,), prompt_rows=4))], PASSES))
    async with device(running) as one:
        await one.send(Generate("g1", 3, prompt=PROMPT, refine=WISH))
        heard = [await one.receive() for _ in range(4)]
        assert kinds(heard) == ["Accepted", "Tokens", "Tokens", "Tokens"]
        go.set()
        rest = await one.until_terminal("g1")
        assert kinds(rest) == ["Refinement", "Finished"]
        # A scorer that never ends does not hold up the end for ever.
        go.clear()
        monkeypatch.setattr(refining, "PATIENCE", 0.05)
        await one.send(Generate("g2", 3, prompt=PROMPT, refine=WISH))
        assert kinds(await one.until_terminal("g2")) == ["Accepted", "Tokens", "Tokens", "Tokens", "Finished"]
        go.set()


async def test_who_stops_gets_no_refinement_any_more(serve, device) -> None:
    go = threading.Event()

    def waits(prompt: Prompt, evidence: Evidence) -> np.ndarray:
        go.wait(30)
        return first_line(prompt, evidence)

    running = serve(slow_engine(), refinery=Refinery([Scripted(waits, Needs())], PASSES))
    async with device(running) as one:
        await one.send(Generate("g1", 4000, prompt=PROMPT, refine=WISH))
        assert isinstance(await one.receive(), Accepted)
        await one.send(Stop("g1", "cancelled"))
        last = (await one.until_terminal("g1"))[-1]
        assert isinstance(last, Finished)
        assert last.reason == "stopped"
        go.set()
        await one.send(Generate("g1", 1, prompt=PROMPT, refine=WISH))
        assert sorted(kinds(await one.until_terminal("g1"))) == ["Accepted", "Finished", "Refinement", "Tokens"]
    await running.emptied()


async def test_a_connection_that_goes_away_leaves_nothing_behind(serve, device, until) -> None:
    go = threading.Event()

    def waits(prompt: Prompt, evidence: Evidence) -> np.ndarray:
        go.wait(30)
        return first_line(prompt, evidence)

    running = serve(slow_engine(), refinery=Refinery([Scripted(waits, Needs())], PASSES))
    async with device(running) as one:
        await one.send(Generate("g1", 4000, prompt=PROMPT, refine=WISH))
        await one.receive()
    await running.emptied()
    go.set()
    await until(lambda: not running.service.connections)


async def test_a_refinement_may_come_before_a_rejection(serve, device) -> None:
    running = serve(slow_engine(max_sequences=1), refine="off")
    async with device(running) as one:
        await one.send(Generate("long", 4000, prompt=PROMPT))
        await one.receive()
        await one.receive()
        await one.send(Generate("late", 1, prompt=PROMPT, refine=WISH, deadline_ms=50.0))
        mine: list[Any] = []
        while not mine or not isinstance(mine[-1], Rejected):
            message = await one.receive()
            mine += [message] if getattr(message, "id", "") == "late" else []
        await one.send(Stop("long", "cancelled"))
    assert kinds(mine) in (["Accepted", "Refinement", "Rejected"], ["Rejected"])


async def test_a_sequence_that_cannot_be_looked_at_is_answered_all_the_same(serve, device) -> None:
    running = serve(Shy(answer_length=100_000), refine="auto")
    async with device(running) as one:
        await one.send(Generate("g1", 3, prompt=PROMPT, refine=WISH))
        messages = await one.until_terminal("g1")
    assert messages[-1].usage.output_tokens == 3
    refinement = only_refinement(messages)
    assert (refinement.guard, refinement.keep) == ("unavailable", ((0, len(PROMPT)),))


async def test_metrics(serve, device, http) -> None:
    running = serve(refine="attention")
    async with device(running) as one:
        await one.send(Generate("g1", 1, prompt=PROMPT, refine=WISH))
        await one.until_terminal("g1")
    text = http(running, "/metrics")[1]
    assert 'pd_refinements_total{guard="passed",scorer="attention"} 1.0' in text
    assert 'pd_refinement_kept_ratio_bucket{le="0.2"} 0.0' in text
    assert 'pd_refinement_kept_ratio_bucket{le="0.3"} 1.0' in text
    assert "pd_refinement_seconds_count 1.0" in text
