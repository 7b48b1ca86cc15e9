"""What is refused, and that a refusal harms nobody else."""

from __future__ import annotations

import pytest

from model_runtime.testing import ScriptedEngine
from tests.cloud_service.endless import slow_engine
from wire_protocol.close_codes import CloseCode
from wire_protocol.messages import Accepted, ChatMessage, Error, Extend, Finished, Generate, Refine, Rejected, Stop

CHAT = (ChatMessage("user", "Where?"),)


async def end_of(device, message: Generate):
    await device.send(message)
    return (await device.until_terminal(message.id))[-1]


@pytest.mark.parametrize(
    ("settings", "message", "named"),
    [
        ({"max_prompt_tokens": 10}, Generate("g", 1, prompt=(1,) * 11), "11 tokens; at most 10"),
        ({"max_prompt_tokens": 10}, Generate("g", 1, prompt=(1,) * 6, output=(1,) * 5), "11 tokens; at most 10"),
        ({"max_grant": 10}, Generate("g", 11, prompt=(1,)), "11 output tokens were asked for; at most 10"),
        ({}, Generate("g", 100, prompt=(1,) * 8100), "the context holds 8192"),
    ],
)
async def test_too_long(serve, device, settings, message, named):
    running = serve(**settings)
    async with device(running) as one:
        end = await end_of(one, message)
        assert isinstance(end, Rejected)
        assert end.reason == "too_long"
        assert named in end.message
        assert end.retry_after_ms is None
        assert (await end_of(one, Generate("next", 2, prompt=(1, 2)))).reason == "grant"


@pytest.mark.parametrize(
    ("text", "message", "named"),
    [
        (False, Generate("g", 1, prompt=(1, 5000)), "token id 5000"),
        (False, Generate("g", 1, prompt=(1,), output=(5000,)), "token id 5000"),
        (False, Generate("g", 1, messages=CHAT), "expected `prompt`"),
        (True, Generate("g", 1, prompt=(1,)), "expected `messages`"),
    ],
)
async def test_a_request_that_makes_no_sense_here(serve, device, text, message, named):
    running = serve()
    async with device(running, text=text) as one:
        end = await end_of(one, message)
        assert isinstance(end, Error)
        assert (end.code, end.retriable) == ("bad_request", False)
        assert named in end.message
        assert running.engine.passes == []


async def test_a_generate_that_can_be_told_apart_ends_and_the_connection_lives_on(serve, device):
    running = serve()
    async with device(running, subprotocol="pd.v1+json") as one:
        await one.socket.send('{"type": "generate", "id": "g1", "grant": 3, "prompt": [1], "tempo": 3}')
        error = await one.receive()
        assert (error.id, error.code) == ("g1", "bad_message")
        assert "tempo" in error.message
        assert (await end_of(one, Generate("g2", 2, prompt=(1, 2)))).reason == "grant"


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (b"\xc1\xc1", CloseCode.INVALID_PAYLOAD),
        (b"", CloseCode.INVALID_PAYLOAD),
        ("{}", CloseCode.UNSUPPORTED_DATA),
        (b"\x81\xa4type\xa5bogus", CloseCode.POLICY_VIOLATION),
    ],
)
async def test_garbage_closes_the_connection_and_frees_what_it_had(serve, device, frame, code):
    running = serve(slow_engine())
    async with device(running) as one:
        await one.send(Generate("g1", 4000, prompt=(1, 2)))
        await one.socket.send(frame)
        _, got = await one.until_closed()
    assert got == code
    await running.emptied()


async def test_a_message_that_is_too_big(serve, device):
    running = serve(max_message_bytes=2048)
    async with device(running) as one:
        await one.send(Generate("g1", 1, prompt=tuple(range(1, 250)) * 10))
        assert await one.until_closed() == ([], CloseCode.MESSAGE_TOO_BIG)


@pytest.mark.parametrize(
    ("second", "code"),
    [
        (Generate("g1", 1, prompt=(1,)), "bad_message"),
        (Stop("never", "cancelled"), "unknown_generation"),
        (Extend("never", 3), "unknown_generation"),
    ],
)
async def test_messages_out_of_order_close_the_connection(serve, device, second, code):
    running = serve(slow_engine())
    async with device(running) as one:
        await one.send(Generate("g1", 4000, prompt=(1, 2)))
        await one.receive()
        await one.send(second)
        messages, close_code = await one.until_closed()
    assert (messages[-1].id, messages[-1].code) == ("", code)
    assert close_code == CloseCode.POLICY_VIOLATION


async def test_over_capacity_is_busy_and_says_when_to_come_again(serve, device):
    running = serve(slow_engine(max_sequences=1), queue_depth=1)
    async with device(running) as one:
        await one.send(Generate("g1", 400, prompt=(1, 2)))
        [await one.receive() for _ in range(4)]
        await one.send(Generate("g2", 400, prompt=(1, 2)))
        await one.send(Generate("g3", 400, prompt=(1, 2)))
        rejected = None
        while rejected is None:
            message = await one.receive()
            rejected = message if message.id == "g3" else None
    assert isinstance(rejected, Rejected)
    assert rejected.reason == "busy"
    # The queue has a place once the answer that runs has ended: about 400 passes of at least 5 ms.
    assert rejected.retry_after_ms > 380 * 5


async def test_concurrent_generations_of_one_key_are_limited(serve, device):
    running = serve(slow_engine(), max_generations=2)
    async with device(running) as one, device(running) as two:
        await one.send(Generate("a", 400, prompt=(1, 2)))
        await one.receive()
        await two.send(Generate("b", 400, prompt=(1, 2)))
        await two.receive()
        await two.send(Generate("c", 1, prompt=(1, 2)))
        message = await two.receive()
        while message.id != "c":
            message = await two.receive()
        assert (message.reason, message.retry_after_ms) == ("rate_limit", None)
        await one.send(Stop("a", "cancelled"))
        while not isinstance(await one.receive(), Finished):
            pass
        await two.send(Generate("d", 1, prompt=(1, 2)))
        while (message := await two.receive()).id != "d":
            pass
        assert not isinstance(message, Rejected)


async def test_generations_per_minute_are_limited(serve, device):
    running = serve(requests_per_minute=2)
    async with device(running) as one:
        ends = [await end_of(one, Generate(f"g{number}", 1, prompt=(1, 2))) for number in range(3)]
    assert [end.reason for end in ends] == ["grant", "grant", "rate_limit"]
    # Half of what the minute before counts must have left the window.
    assert 30_000 <= ends[2].retry_after_ms <= 90_000


async def test_a_deadline_that_cannot_be_met_is_rejected_before_anything_is_generated(serve, device):
    running = serve(slow_engine(max_sequences=1))
    async with device(running) as one:
        await one.send(Generate("a", 2000, prompt=(1, 2)))
        [await one.receive() for _ in range(3)]
        passes_before = len(running.engine.passes)
        await one.send(Generate("b", 2, prompt=(3,) * 50, deadline_ms=40))
        while (message := await one.receive()).id != "b":
            pass
        assert isinstance(message, Rejected)
        assert message.reason == "deadline"
        assert all(len(chunk.tokens) < 50 for chunks in running.engine.passes[passes_before:] for chunk in chunks)


async def test_a_deadline_that_is_missed_after_acceptance_is_still_a_rejection(serve, device):
    running = serve(slow_engine(), pass_tokens=16)
    async with device(running) as one:
        # Nothing was measured yet, so it is accepted; 5,000 tokens take more than 300 passes.
        await one.send(Generate("a", 2, prompt=(3,) * 5000, deadline_ms=300, refine=Refine(0.5)))
        messages = await one.until_terminal("a")
        await one.send(Generate("b", 2, prompt=(3,) * 5, refine=Refine(0.5)))
        assert (await one.until_terminal("b"))[-1].reason == "grant"
    assert [type(message) for message in messages] == [Accepted, Rejected]
    assert messages[-1].reason == "deadline"
    await running.emptied()


async def test_the_service_s_own_deadline_holds_where_the_request_says_none(serve, device):
    running = serve(ScriptedEngine(delay=lambda chunks: 0.05), first_token_deadline_ms=10.0)
    async with device(running) as one:
        await one.send(Generate("a", 2, prompt=(1, 2), deadline_ms=60_000))
        first = (await one.until_terminal("a"))[-1]
        await one.send(Generate("b", 2, prompt=(1, 2)))
        second = (await one.until_terminal("b"))[-1]
    # The first one taught the service how long a prefill takes.
    assert isinstance(first, Finished)
    assert isinstance(second, Rejected)
    assert second.reason == "deadline"
