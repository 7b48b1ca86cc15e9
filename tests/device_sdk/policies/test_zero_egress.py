"""With ONLY_ON_DEVICE, and with a secret prompt, no socket is opened: seen by the interpreter's own audit events."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator

import pytest

from device_sdk import ConfigurationError, HybridClient, Mode, Privacy, Situation
from model_runtime.testing import ScriptedEngine
from tests.device_sdk.conftest import PROMPT, per_token

#: Whatever makes a socket, or looks a name up, whichever library it is in.
EVENTS = ("socket.__new__", "socket.connect", "socket.bind", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo")

SECRET = Situation(privacy=Privacy.SECRET)


class Watch:
    """An audit hook cannot be removed, so there is one, and it looks only while it is told to."""

    def __init__(self) -> None:
        self.looking = False
        self.seen: list[str] = []
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[object, ...]) -> None:
        if self.looking and event in EVENTS:
            self.seen.append(event)


WATCH = Watch()


@pytest.fixture
async def sockets() -> Iterator[list[str]]:
    """Those opened from here on: the event loop has its own already."""
    WATCH.seen.clear()
    WATCH.looking = True
    yield WATCH.seen
    WATCH.looking = False


def client(**options: object) -> HybridClient:
    device = ScriptedEngine(delay=per_token(0.0002))
    return HybridClient(device=device, cloud="ws://example.invalid:9", **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("situation", [None, SECRET])
async def test_only_on_device_opens_none(sockets: list[str], situation: Situation | None) -> None:
    async with client(mode=Mode.ONLY_ON_DEVICE) as one:
        answer = await one.generate(PROMPT, max_tokens=30, refine=True, situation=situation)
    assert answer.report.device_tokens == 30
    assert sockets == []


@pytest.mark.parametrize("mode", [Mode.SPLIT, Mode.PREFER_ON_DEVICE, Mode.PREFER_IN_CLOUD])
async def test_a_secret_prompt_opens_none_in_any_mode(sockets: list[str], mode: Mode) -> None:
    async with client(mode=mode) as one:
        answer = await one.generate(PROMPT, max_tokens=30, situation=SECRET)
    assert (answer.report.mode, answer.report.device_tokens) == (Mode.ONLY_ON_DEVICE, 30)
    assert "secret" in answer.report.route_reason
    assert sockets == []


async def test_a_secret_that_only_the_cloud_could_answer_is_refused(sockets: list[str]) -> None:
    async with client(mode=Mode.ONLY_IN_CLOUD) as one:
        with pytest.raises(ConfigurationError, match="secret"):
            await one.generate(PROMPT, situation=SECRET)
    assert sockets == []


async def test_the_watch_sees_a_split_try(sockets: list[str]) -> None:
    """Else the tests above would prove nothing."""
    async with client() as one:
        await one.generate(PROMPT, max_tokens=30)
    await asyncio.sleep(0)
    assert "socket.getaddrinfo" in sockets
