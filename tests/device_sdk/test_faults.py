"""Links that stall, drop and lie, services and engines that die: one terminal event, and the whole answer whenever one
side lived."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys

import pytest

from device_sdk import (
    Failed,
    Finished,
    HybridClient,
    Mode,
    Notice,
    PaceSettings,
    SplitSettings,
    Timeouts,
    Token,
)
from device_sdk.testing import Direction, LinkProxy
from model_runtime.testing import Faults, ScriptedEngine
from tests.device_sdk.conftest import PROMPT, per_token
from tests.device_sdk.lying import lying_service
from wire_protocol.messages import Finished as WireFinished
from wire_protocol.messages import Tokens

OFF = PaceSettings(mode="off")
SPLIT = SplitSettings(grant=12, max_grant=12, pace=OFF)
QUICK = Timeouts(connect=0.5, first_token=0.5, idle=0.3, device_pass=1.0)


def phone(**model: object) -> ScriptedEngine:
    return ScriptedEngine(delay=per_token(0.001), **model)  # type: ignore[arg-type]


def cloud(**model: object) -> ScriptedEngine:
    """Gives a token every 5 ms, so that a fault can hit between two."""
    return ScriptedEngine(delay=lambda _: 0.005, **model)  # type: ignore[arg-type]


async def run(client: HybridClient, **options: object) -> list[object]:
    events = [event async for event in client.stream(PROMPT, **options)]  # type: ignore[arg-type]
    assert sum(isinstance(event, Finished | Failed) for event in events) == 1
    assert isinstance(events[-1], Finished | Failed)
    return events


def kinds(events: list[object]) -> list[str]:
    return [event.kind for event in events if isinstance(event, Notice)]


async def check_whole(events: list[object], answer: tuple[int, ...]) -> None:
    assert isinstance(events[-1], Finished)
    assert events[-1].answer.token_ids == answer
    assert tuple(event.token_id for event in events if isinstance(event, Token)) == answer


@pytest.mark.parametrize("fault", ["drop", "close", "stall", "garbage", "late"])
@pytest.mark.parametrize("after", [0, 1, 5])
async def test_a_bad_link_after_any_token_leaves_the_whole_answer(serve, own_answer, fault: str, after: int) -> None:
    running = serve(cloud())
    async with LinkProxy(running.host, running.port) as link:
        client = HybridClient(device=phone(), cloud=link.url(), split=SPLIT, timeouts=QUICK)
        async with client:
            events: list[object] = []
            stream = client.stream(PROMPT)
            happened = False
            async with contextlib.aclosing(stream):
                if after == 0:
                    task = asyncio.create_task(anext(stream))
                    await asyncio.sleep(0.01)
                    await _break(link, fault)
                    happened = True
                    events.append(await task)
                async for event in stream:
                    events.append(event)
                    if not happened and len(events) >= after:
                        await _break(link, fault)
                        happened = True
            await check_whole(events, own_answer())


async def _break(link: LinkProxy, fault: str) -> None:
    match fault:
        case "drop":
            link.drop()
        case "close":
            link.close()
        case "stall":
            link.stall()
        case "garbage":
            link.garbage(b"\x00\xff neither a frame nor sense \x82\x7e")
        case "late":
            link.delay(0.4, Direction.DOWN)


@pytest.mark.parametrize("when", ["before accept", "before the first token", "after some tokens"])
async def test_a_killed_server_process(own_answer, when: str) -> None:
    """SIGKILL on a real process that serves the scripted model."""
    async with server_process() as (process, url):
        async with HybridClient(device=phone(), cloud=url, split=SPLIT, timeouts=QUICK) as client:
            if when == "before accept":
                process.send_signal(signal.SIGKILL)
                await process.wait()
            events: list[object] = []
            stream = client.stream(PROMPT)
            if when == "before the first token":
                task = asyncio.create_task(anext(stream))
                await asyncio.sleep(0.015)
                process.send_signal(signal.SIGKILL)
                events.append(await task)
            async for event in stream:
                events.append(event)
                if when == "after some tokens" and len(events) == 4:
                    process.send_signal(signal.SIGKILL)
        await check_whole(events, own_answer())


@contextlib.asynccontextmanager
async def server_process():
    """`pd-cloud`'s app with the scripted engine, in a process of its own."""
    script = """
import asyncio
from cloud_service.app import create_app
from cloud_service.server import CloudServer
from cloud_service.settings import Settings
from http_api.serving import listen
from model_runtime.testing import ScriptedEngine

async def main():
    settings = Settings(model="scripted")
    app = create_app(settings, ScriptedEngine(delay=lambda _: 0.005))
    listener = listen("127.0.0.1", 0)
    print(listener.getsockname()[1], flush=True)
    await CloudServer(app, app.state.service, settings).serve(sockets=[listener])

asyncio.run(main())
"""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE, env={**os.environ, "PYTHONPATH": "."}
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(30):
            port = int(await process.stdout.readline())
        yield process, f"ws://127.0.0.1:{port}"
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def _garbage(socket, codec, message) -> None:
    await socket.send(b"\xc1 no message")


async def _foreign_ids(socket, codec, message) -> None:
    await socket.send(codec.encode(Tokens(message.id, 0, ids=(10**6,))))


async def _gap(socket, codec, message) -> None:
    await socket.send(codec.encode(Tokens(message.id, 3, ids=(5,))))


async def _too_many(socket, codec, message) -> None:
    await socket.send(codec.encode(Tokens(message.id, 0, ids=(5,) * 50)))


async def _text_instead(socket, codec, message) -> None:
    await socket.send(codec.encode(Tokens(message.id, 0, count=1, data=b"hello")))


async def _stopped_unasked(socket, codec, message) -> None:
    await socket.send(codec.encode(WireFinished(message.id, "stopped")))


async def _nothing_then_close(socket, codec, message) -> None:
    await socket.close(1011, "gone")


@pytest.mark.parametrize(
    "behave", [_garbage, _foreign_ids, _gap, _too_many, _text_instead, _stopped_unasked, _nothing_then_close]
)
async def test_a_service_that_breaks_the_protocol_never_touches_the_answer(own_answer, behave) -> None:
    async with (
        lying_service(behave) as url,
        HybridClient(device=phone(), cloud=url, split=SPLIT, timeouts=QUICK) as client,
    ):
        events = await run(client)
    await check_whole(events, own_answer())
    assert kinds(events) == ["cloud_lost"]


async def test_a_service_that_lies_about_its_tokenizer_is_not_listened_to(own_answer) -> None:
    async with (
        lying_service(_foreign_ids, "ids", fingerprint="another") as url,
        HybridClient(device=phone(), cloud=url, split=SPLIT, timeouts=QUICK) as client,
    ):
        events = await run(client)
    await check_whole(events, own_answer())
    assert "its tokenizer or template is another" in events[-1].answer.report.notices[0]


@pytest.mark.parametrize("step", [0, 1, 2, 5, 20])
@pytest.mark.parametrize("mode", [Mode.SPLIT, Mode.PREFER_ON_DEVICE])
async def test_a_device_engine_that_dies_at_any_pass(serve, own_answer, mode: Mode, step: int) -> None:
    running = serve(cloud())
    device = phone()
    async with HybridClient(device=device, cloud=running.url, split=SPLIT, mode=mode, timeouts=QUICK) as client:
        device.faults = Faults(fail_at=len(device.passes) + step)
        events = await run(client)
        await check_whole(events, own_answer())
        assert kinds(events)[-1] in ("device_failed", "device_unusable")
        # From now on the cloud answers alone, and says why.
        again = await run(client, max_tokens=5)
    await check_whole(again, own_answer(count=5))
    assert kinds(again) == ["device_unusable"]


async def test_a_device_engine_that_hangs_is_given_up(serve, own_answer) -> None:
    running = serve(cloud())
    device = phone()
    timeouts = Timeouts(device_pass=0.3)
    async with HybridClient(device=device, cloud=running.url, split=SPLIT, timeouts=timeouts) as client:
        device.faults = Faults(hang_at=len(device.passes) + 2)
        events = await run(client)
    await check_whole(events, own_answer())
    assert "no pass ended within 0.3 s" in events[-1].answer.report.notices[-1]


async def test_both_lost_gives_a_typed_error_with_the_partial_answer(serve, own_answer) -> None:
    running = serve(cloud())
    device = phone()
    async with (
        LinkProxy(running.host, running.port) as link,
        HybridClient(device=device, cloud=link.url(), split=SPLIT, timeouts=QUICK) as client,
    ):
        device.faults = Faults(fail_at=len(device.passes) + 1)
        events: list[object] = []
        async for event in client.stream(PROMPT):
            events.append(event)
            if len(events) == 4:
                link.drop()
                link.refuse()
    assert isinstance(events[-1], Failed)
    partial = events[-1].error.answer
    assert partial.token_ids == own_answer()[: len(partial.token_ids)]
    assert len(partial.token_ids) >= 3
    assert partial.report.finish_reason == "failed"
    assert "cloud_lost" in str(events[-1].error)


async def test_a_service_that_drains_leaves_the_device(own_answer) -> None:
    async with (
        server_process() as (process, url),
        HybridClient(device=phone(), cloud=url, split=SPLIT, timeouts=QUICK) as client,
    ):
        await run(client, max_tokens=5)
        process.send_signal(signal.SIGTERM)
        await process.wait()
        events = await run(client)
    await check_whole(events, own_answer())
    assert kinds(events) == ["cloud_lost"]


async def test_engine_failure_in_the_cloud_leaves_the_device(serve, own_answer) -> None:
    running = serve(cloud(faults=Faults(fail_at=4)))
    async with HybridClient(device=phone(), cloud=running.url, split=SPLIT, timeouts=QUICK) as client:
        events = await run(client)
    await check_whole(events, own_answer())
    assert kinds(events) == ["cloud_lost"]
