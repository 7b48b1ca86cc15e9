"""A real local server on loopback, before a real service or alone, in threads of this process."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import signal
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import openai
import pytest

from device_sdk.local_server.app import create_app
from device_sdk.local_server.server import LocalServer
from device_sdk.local_server.service import LocalService
from device_sdk.local_server.settings import LocalSettings
from model_runtime.core import Engine
from model_runtime.testing import ScriptedEngine
from tests.cloud_service.conftest import serve
from tests.serving import in_thread

__all__ = ["serve"]

#: Seconds. Nothing here takes a tenth of it, but on a machine that is busy with something else.
PATIENCE = 30
MODEL = "toy"


@dataclass(frozen=True, slots=True)
class Local:
    """A local server under test."""

    service: LocalService
    server: LocalServer
    loop: asyncio.AbstractEventLoop
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self, key: str = "none") -> openai.OpenAI:
        """Use it as `with`."""
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0)

    def terminate(self) -> None:
        """What SIGTERM does."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: it has ended already
            self.loop.call_soon_threadsafe(self.server.handle_exit, signal.SIGTERM, None)

    async def until_idle(self) -> None:
        async with asyncio.timeout(PATIENCE):
            while self.service.running:  # noqa: ASYNC110 - it lives in another thread
                await asyncio.sleep(0.005)

    def http(
        self, path: str, body: object = None, *, method: str | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Mapping[str, str], str]:
        """Status, headers and body of a plain request; `body` is sent as JSON unless it is bytes."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)) as connection:
            connection.request(method or ("GET" if data is None else "POST"), path, data, dict(headers or {}))
            response = connection.getresponse()
            return response.status, dict(response.getheaders()), response.read().decode()


def settings_of(**options: Any) -> LocalSettings:
    return LocalSettings(**{"device": "scripted", "model_name": MODEL, "drain_ms": 2000.0, "pace_ms": 0.0, **options})


def run_local(
    settings: LocalSettings, engine: Engine | None, *, wait: bool = True
) -> contextlib.AbstractContextManager[Local]:
    def prepare(loop: asyncio.AbstractEventLoop, _: str, port: int) -> tuple[LocalServer, asyncio.Event | None, Local]:
        app = create_app(settings, engine)
        service = app.state.service
        server = LocalServer(app, service)
        return server, service.settled if wait else None, Local(service, server, loop, port)

    return in_thread(prepare, patience=PATIENCE)


@pytest.fixture
def local() -> Iterator[Callable[..., Local]]:
    """`local(engine, cloud=…, max_generations=…)`: a running local server, shut down at the end of the test."""
    with contextlib.ExitStack() as stack:

        def start(engine: Engine | None = None, *, wait: bool = True, **options: Any) -> Local:
            stands_in = engine if engine is not None or "device" in options else ScriptedEngine()
            return stack.enter_context(run_local(settings_of(**options), stands_in, wait=wait))

        yield start


@pytest.fixture(scope="module")
def refusing() -> Iterator[tuple[Local, openai.OpenAI, ScriptedEngine]]:
    """One server for a module's requests that are to be refused, its client, and its engine."""
    engine = ScriptedEngine()
    with run_local(settings_of(), engine) as server, server.client() as api:
        yield server, api, engine


def says(text: str, **options: Any) -> ScriptedEngine:
    return ScriptedEngine(script=ScriptedEngine().tokenizer.encode(text), **options)


def slow(**options: Any) -> ScriptedEngine:
    """One that goes on for long, at 5 ms a pass."""
    return ScriptedEngine(delay=lambda chunks: 0.005, answer_length=100_000, **options)
