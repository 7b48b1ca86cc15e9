"""Devices over a real WebSocket: what they are told, in which order."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable, Sequence

import pytest

from model_runtime.core import Chunk, Message
from model_runtime.sampling import Sampler, SamplingParams
from model_runtime.testing import ScriptedEngine
from tests.cloud_service.endless import slow_engine, talkative
from wire_protocol.messages import (
    Accepted,
    ChatMessage,
    CloudMessage,
    Extend,
    Finished,
    Generate,
    Progress,
    Sampling,
    Stop,
    Tokens,
)

PROMPT = tuple(ScriptedEngine().tokenizer.encode("the crew of the north gate was at the pump"))
CHAT = (ChatMessage("system", "Be brief."), ChatMessage("user", "Where is the crew?"))


def drive(engine: ScriptedEngine, prompt: Sequence[int], count: int, params: SamplingParams | None = None) -> list[int]:
    """What the engine says when nothing is between it and the test."""
    sequence, answer = engine.open(), []
    sampler = Sampler(params or SamplingParams(), prompt)
    logits = engine.forward([Chunk(sequence, prompt)])[0].logits[-1]
    while len(answer) < count:
        token = sampler.sample(logits, answer)
        if token in engine.tokenizer.eos_ids:
            break
        answer.append(token)
        logits = engine.forward([Chunk(sequence, [token])])[0].logits[-1]
    return answer


def ids_of(messages: Iterable[CloudMessage]) -> list[int]:
    return [token for message in messages if isinstance(message, Tokens) for token in message.ids]


def text_of(messages: Iterable[CloudMessage]) -> str:
    return b"".join(message.data for message in messages if isinstance(message, Tokens)).decode()


@pytest.mark.parametrize("subprotocol", ["pd.v1", "pd.v1+json"])
async def test_a_grant_of_ids(serve, device, subprotocol):
    running = serve()
    async with device(running, subprotocol=subprotocol) as one:
        await one.send(Generate("g1", 8, prompt=PROMPT))
        messages = await one.until_terminal("g1")
    accepted, finished = messages[0], messages[-1]
    assert accepted == Accepted("g1", len(PROMPT), cached_tokens=0, queue_ms=0.0)
    assert ids_of(messages) == drive(talkative(), PROMPT, 8)
    assert [message.first for message in messages[1:-1]] == list(range(8))
    assert isinstance(finished, Finished)
    assert finished.reason == "grant"
    assert (finished.usage.prompt_tokens, finished.usage.output_tokens) == (len(PROMPT), 8)
    assert finished.usage.prefill_ms > 0
    assert finished.usage.decode_ms > 0


@pytest.mark.parametrize("subprotocol", ["pd.v1", "pd.v1+json"])
async def test_a_whole_answer_as_text(serve, device, subprotocol):
    text = "Der grüne Wagen, 東京 ✓ — naïve café.\n" * 5
    tokenizer = talkative().tokenizer
    running = serve(ScriptedEngine(script=tokenizer.encode(text)))
    prompt = tokenizer.render_chat([Message(role=part.role, content=part.content) for part in CHAT])
    async with device(running, subprotocol=subprotocol, text=True) as one:
        await one.send(Generate("g1", 500, messages=CHAT))
        messages = await one.until_terminal("g1")
    assert messages[0] == Accepted("g1", len(prompt))
    assert text_of(messages) == text
    assert ids_of(messages) == []
    assert sum(message.count for message in messages[1:-1]) == len(tokenizer.encode(text))
    assert messages[-1].reason == "eos"


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(temperature=0.9, top_p=0.95, seed=7, presence_penalty=0.5)])
async def test_an_answer_cut_anywhere_and_continued_is_the_same_answer(serve, device, sampling):
    running = serve(pass_tokens=16)
    params = SamplingParams(
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        seed=sampling.seed,
        presence_penalty=sampling.presence_penalty,
    )
    expected = drive(talkative(), PROMPT, 30, params)
    async with device(running) as one:
        for cut in (0, 1, 13, 29):
            await one.send(Generate("a", cut, prompt=PROMPT, sampling=sampling))
            begun = ids_of(await one.until_terminal("a"))
            await one.send(Generate("b", 30 - cut, prompt=PROMPT, sampling=sampling, output=tuple(begun)))
            rest = await one.until_terminal("b")
            assert begun + ids_of(rest) == expected
            assert rest[1].first == cut


async def test_an_answer_continued_as_text(serve, device):
    running = serve()
    tokenizer = running.engine.tokenizer
    async with device(running, text=True) as one:
        await one.send(Generate("a", 5, messages=CHAT))
        begun = text_of(await one.until_terminal("a"))
        await one.send(Generate("b", 9, messages=CHAT, output_text=begun))
        rest = await one.until_terminal("b")
    prompt = tokenizer.render_chat([Message(role=part.role, content=part.content) for part in CHAT])
    assert text_of(rest) == b"".join(
        map(tokenizer.token_bytes, drive(talkative(), [*prompt, *tokenizer.encode(begun)], 9))
    ).decode(errors="replace")
    assert rest[1].first == 0


async def test_many_generations_share_a_connection_and_each_gets_its_own_answer(serve, device):
    running = serve(talkative(max_sequences=4), queue_depth=16)
    prompts = {f"g{number}": (*PROMPT, number) for number in range(12)}
    answers: dict[str, list[CloudMessage]] = {name: [] for name in prompts}
    async with device(running) as one:
        for name, prompt in prompts.items():
            await one.send(Generate(name, 20, prompt=prompt))
        while not all(messages and isinstance(messages[-1], Finished) for messages in answers.values()):
            message = await one.receive()
            answers[message.id].append(message)
    for name, prompt in prompts.items():
        assert ids_of(answers[name]) == drive(talkative(), prompt, 20)


async def test_many_connections_at_once(serve, device):
    running = serve(queue_depth=30)

    async def ask(number: int) -> list[int]:
        async with device(running) as one:
            await one.send(Generate("g", 10, prompt=(*PROMPT, number)))
            return ids_of(await one.until_terminal("g"))

    answers = await asyncio.gather(*map(ask, range(20)))
    assert answers == [drive(talkative(), (*PROMPT, number), 10) for number in range(20)]


async def test_extend_goes_on_with_the_same_generation(serve, device):
    running = serve(linger_ms=5000.0)
    async with device(running) as one:
        await one.send(Generate("g1", 3, prompt=PROMPT))
        begun = [await one.receive() for _ in range(4)]
        passes = len(running.engine.passes)
        await one.send(Extend("g1", 10))
        begun += [await one.receive() for _ in range(7)]
        assert ids_of(begun) == drive(talkative(), PROMPT, 10)
        assert len(running.engine.passes) == passes + 7
        await one.send(Stop("g1", "taken_over"))
        finished = await one.receive()
    assert finished.reason == "stopped"
    assert finished.usage.output_tokens == 10


async def test_an_extend_that_comes_too_late_is_ignored(serve, device):
    running = serve()
    async with device(running) as one:
        await one.send(Generate("g1", 3, prompt=PROMPT))
        await one.until_terminal("g1")
        await one.send(Extend("g1", 10))
        await one.send(Generate("g2", 2, prompt=PROMPT))
        assert len(ids_of(await one.until_terminal("g2"))) == 2


async def test_an_extend_beyond_the_cap_ends_the_generation_and_names_the_cap(serve, device):
    running = serve(slow_engine(), max_grant=50)
    async with device(running) as one:
        await one.send(Generate("g1", 40, prompt=PROMPT))
        await one.receive()
        await one.send(Extend("g1", 51))
        end = (await one.until_terminal("g1"))[-1]
    assert end.code == "bad_request"
    assert "at most 50" in end.message


async def test_stop_ends_a_generation_and_frees_its_place(serve, device):
    running = serve(slow_engine(max_sequences=1), queue_depth=1)
    async with device(running) as one:
        await one.send(Generate("g1", 4000, prompt=PROMPT))
        await one.receive()
        await one.send(Generate("g2", 1, prompt=PROMPT))
        await one.send(Stop("g1", "cancelled"))
        ends = {}
        while len(ends) < 2:
            message = await one.receive()
            if isinstance(message, Finished):
                ends[message.id] = message.reason
    assert ends == {"g1": "stopped", "g2": "grant"}


async def test_stop_ends_a_pass_that_only_this_generation_is_in(serve, device):
    engine = ScriptedEngine(delay=lambda chunks: 60.0)
    running = serve(engine)
    async with device(running) as one:
        await one.send(Generate("g1", 4, prompt=PROMPT))
        await one.receive()
        await one.send(Progress("g1", 0, 0, 50.0))
        await one.send(Stop("g1", "taken_over"))
        finished = await one.receive()
    assert (finished.reason, finished.usage.output_tokens) == ("stopped", 0)


@pytest.mark.parametrize("text", [False, True])
async def test_a_stop_string_ends_the_answer(serve, device, text):
    words = ScriptedEngine().tokenizer
    script = words.encode(" the crew at the north gate was naïve")
    running = serve(ScriptedEngine(script=script))
    ask = {"messages": CHAT} if text else {"prompt": PROMPT}
    async with device(running, text=text) as one:
        await one.send(Generate("g1", 50, stop=("rth g", "zzz"), **ask))
        messages = await one.until_terminal("g1")
    assert messages[-1].reason == "stop"
    if text:
        assert text_of(messages) == " the crew at the no"
    else:
        # All ids are sent: a stop string may end inside one, and the device cuts the text.
        assert b"".join(map(words.token_bytes, ids_of(messages))).decode() == " the crew at the north gate"


async def test_no_token_waits_for_the_acknowledgement_of_the_one_before(serve, device):
    running = serve()
    async with device(running):
        [connection] = running.server.server_state.connections
        plug = connection.transport.get_extra_info("socket")
        assert plug.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_the_first_token_does_not_wait_for_others_prefill(serve, device):
    running = serve(slow_engine(), pass_tokens=32)
    async with device(running) as one:
        await one.send(Generate("measured", 1, prompt=PROMPT))
        await one.until_terminal("measured")
        await one.send(Generate("long", 2, prompt=PROMPT * 200))
        await one.send(Generate("short", 2, prompt=PROMPT))
        order = []
        while len(order) < 2:
            message = await one.receive()
            if isinstance(message, Finished):
                order.append(message.id)
    assert order == ["short", "long"]
