"""Ends that nobody wished for: clients that vanish or do not read, an engine that fails, a service that goes away."""

from __future__ import annotations

import contextlib
import socket
import time

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from model_runtime.testing import Faults, ScriptedEngine
from tests.cloud_service.endless import slow_engine, talkative
from wire_protocol.close_codes import CloseCode
from wire_protocol.messages import Accepted, Draining, Error, Finished, Generate, Rejected, Tokens, terminal

ENDLESS = 100_000


@pytest.mark.parametrize("how", ["close", "vanish"])
async def test_what_a_client_leaves_behind_is_freed(serve, device, how):
    running = serve(slow_engine(max_sequences=2), queue_depth=2)
    async with device(running) as one:
        for number in range(4):
            await one.send(Generate(f"g{number}", 4000, prompt=(1, 2)))
        while not isinstance(await one.receive(), Tokens):
            pass
        if how == "close":
            await one.socket.close()
        else:
            one.socket.transport.abort()
        await running.emptied()
    async with device(running) as two:
        await two.send(Generate("g", 2, prompt=(1, 2)))
        assert (await two.until_terminal("g"))[-1].reason == "grant"


async def test_a_client_that_leaves_ends_a_pass_that_nobody_else_is_in(serve, device):
    running = serve(ScriptedEngine(delay=lambda chunks: 60.0))
    async with device(running) as one:
        await one.send(Generate("g", 4, prompt=(1, 2)))
        await one.receive()
    await running.emptied()


@contextlib.asynccontextmanager
async def deaf(running, device):
    """A device that has an endless generation and reads nothing of it, over sockets with small buffers."""
    small = socket.socket()
    small.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    small.connect((running.host, running.port))
    async with device(running, sock=small, max_queue=1, subprotocol="pd.v1+json") as one:
        await one.send(Generate("g", ENDLESS, prompt=(1, 2)))
        yield one


async def test_a_slow_reader_is_dropped_with_a_reason_and_nobody_else_notices(serve, device):
    engine = talkative(context_length=2 * ENDLESS)
    limits = {"send_queue_messages": 20, "send_timeout_ms": 60_000.0}
    running = serve(engine, max_grant=ENDLESS, send_buffer=4096, **limits)
    async with device(running) as other, deaf(running, device) as one:
        await other.send(Generate("g", 50, prompt=(1, 2)))
        assert (await other.until_terminal("g"))[-1].reason == "grant"
        await running.emptied()
        messages, code = await one.until_closed()
        assert (messages[-1].id, messages[-1].code, messages[-1].retriable) == ("", "slow_reader", True)
        assert code == CloseCode.SLOW_READER
        await other.send(Generate("h", 50, prompt=(1, 2)))
        assert (await other.until_terminal("h"))[-1].reason == "grant"


async def test_a_client_that_does_not_read_costs_nobody_else_a_pass(serve, device, until):
    engine = slow_engine(context_length=2 * ENDLESS)
    limits = {"send_queue_messages": 2 * ENDLESS, "send_timeout_ms": 60_000.0}
    running = serve(engine, max_grant=ENDLESS, send_buffer=4096, **limits)
    async with device(running) as other, deaf(running, device):
        await until(lambda: len(engine.passes) > 5)
        await other.send(Generate("g", 100, prompt=(7,)))
        assert (await other.until_terminal("g"))[-1].reason == "grant"
    fed = [{chunk.sequence: chunk.tokens for chunk in chunks} for chunks in list(engine.passes)]
    [mine] = {sequence for chunks in fed for sequence, tokens in chunks.items() if list(tokens) == [7]} - {0}
    taking_part = [number for number, chunks in enumerate(fed) if mine in chunks]
    assert taking_part == list(range(taking_part[0], taking_part[0] + 100))


async def test_a_client_that_never_reads_does_not_keep_its_connection(serve, device, until):
    engine = talkative(context_length=2 * ENDLESS)
    # As many messages may wait as there are: what counts is that nothing is read.
    limits = {"send_queue_messages": 2 * ENDLESS, "send_timeout_ms": 100.0}
    running = serve(engine, max_grant=ENDLESS, send_buffer=4096, **limits)
    async with deaf(running, device):
        await running.emptied()
        await until(lambda: not running.service.connections)
        await until(lambda: not running.server.server_state.connections)


async def test_a_broken_engine_ends_every_generation_with_a_retriable_error(serve, device, http):
    running = serve(slow_engine(max_sequences=2))
    async with device(running) as one:
        for number in range(3):
            await one.send(Generate(f"g{number}", 4000, prompt=(1, 2)))
        while not isinstance(await one.receive(), Tokens):
            pass
        running.engine.faults = Faults(fail_at=len(running.engine.passes) + 2)
        ends = {}
        while len(ends) < 3:
            message = await one.receive()
            if terminal(message):
                ends[message.id] = message
        assert {(end.code, end.retriable) for end in ends.values()} == {("engine", True)}
        await one.send(Generate("late", 1, prompt=(1, 2)))
        late = await one.receive()
        assert (late.code, late.retriable) == ("engine", True)
    assert http(running, "/ready")[0] == 503
    assert http(running, "/health")[0] == 503
    with pytest.raises(InvalidStatus) as refused:
        async with connect(running.ws_url, subprotocols=["pd.v1"]):
            pass
    assert refused.value.response.status_code == 503


async def test_drain_lets_grants_finish_refuses_new_ones_and_closes_with_1001(serve, device, http):
    running = serve(slow_engine(), drain_ms=5000.0, linger_ms=5000.0)
    async with device(running) as one:
        await one.send(Generate("g", 40, prompt=(1, 2)))
        while not isinstance(await one.receive(), Tokens):
            pass
        running.terminate()
        while not isinstance(message := await one.receive(), Draining):
            pass
        assert message.in_ms == 5000.0
        assert http(running, "/ready")[0] == 503
        assert http(running, "/health")[0] == 200
        await one.send(Generate("new", 1, prompt=(1, 2)))
        messages, code = await one.until_closed()
    new = [message for message in messages if getattr(message, "id", "") == "new"]
    assert [(type(message), message.reason) for message in new] == [(Rejected, "draining")]
    [finished] = [message for message in messages if isinstance(message, Finished)]
    assert (finished.reason, finished.usage.output_tokens) == ("grant", 40)
    assert code == CloseCode.GOING_AWAY


async def test_drain_is_bounded_what_is_left_ends_in_an_error(serve, device):
    running = serve(slow_engine(max_sequences=1), drain_ms=50.0)
    async with device(running) as one:
        await one.send(Generate("running", 4000, prompt=(1, 2)))
        await one.send(Generate("waiting", 4000, prompt=(1, 2)))
        started = time.monotonic()
        running.terminate()
        messages, code = await one.until_closed()
    ends = {message.id: message for message in messages if terminal(message)}
    assert set(ends) == {"running", "waiting"}
    assert all(isinstance(end, Error) and end.retriable for end in ends.values())
    assert code == CloseCode.GOING_AWAY
    assert time.monotonic() - started < 5


async def test_drain_ends_a_pass_that_would_never_end(serve, device):
    running = serve(ScriptedEngine(faults=Faults(hang_at=0)), drain_ms=20.0)
    async with device(running) as one:
        await one.send(Generate("g", 4, prompt=(1, 2)))
        assert isinstance(await one.receive(), Accepted)
        running.terminate()
        messages, code = await one.until_closed()
    assert [message.id for message in messages if terminal(message)] == ["g"]
    assert code == CloseCode.GOING_AWAY


async def test_a_second_signal_waits_no_longer_for_what_runs(serve, device):
    running = serve(slow_engine(), drain_ms=60_000.0)
    async with device(running) as one:
        await one.send(Generate("g", 4000, prompt=(1, 2)))
        assert isinstance(await one.receive(), Accepted)
        running.terminate()
        while not isinstance(await one.receive(), Draining):
            pass
        running.terminate()
        messages, code = await one.until_closed()
    assert isinstance(messages[-1], Error)
    assert code == CloseCode.GOING_AWAY
