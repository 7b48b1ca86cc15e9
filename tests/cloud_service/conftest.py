"""A real server on loopback, real clients, and an engine that says what the test wants."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import http.client
import signal
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from cloud_service.app import create_app
from cloud_service.keys.records import digest
from cloud_service.metrics import Occupancy
from cloud_service.refinement import Refinery
from cloud_service.server import CloudServer
from cloud_service.service import Service
from cloud_service.settings import Settings
from model_runtime.testing import ScriptedEngine
from tests.serving import in_thread
from wire_protocol.codec import codec_for
from wire_protocol.messages import CloudMessage, DeviceMessage, Hello, Welcome, terminal

#: Seconds. Nothing here takes a tenth of it, but on a machine that is busy with something else.
PATIENCE = 30


@dataclass(frozen=True, slots=True)
class Running:
    """A service under test, in a thread of this process."""

    service: Service
    engine: ScriptedEngine
    server: CloudServer
    loop: asyncio.AbstractEventLoop
    host: str
    port: int

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    @property
    def ws_url(self) -> str:
        return f"ws://{self.host}:{self.port}/v1/pd"

    async def emptied(self) -> None:
        """Wait until nothing is left in the engine: no generation, and no open sequence but those that are kept."""
        runner = self.service.state.desk.backend

        def idle() -> Occupancy:
            return dataclasses.replace(runner.occupancy(), kept_sequences=0, kept_tokens=0)

        await until(lambda: idle() == Occupancy())
        free = self.engine.info.max_sequences - runner.occupancy().kept_sequences
        sequences = [self.engine.open() for _ in range(free)]
        for sequence in sequences:
            self.engine.close(sequence)

    def terminate(self) -> None:
        """What SIGTERM does."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: it has ended already
            self.loop.call_soon_threadsafe(self.server.handle_exit, signal.SIGTERM, None)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that nobody announces, at most PATIENCE."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


class Device:
    """A plain client of the protocol: what it is told, in order."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.codec = codec_for(socket.subprotocol)

    async def send(self, message: DeviceMessage) -> None:
        await self.socket.send(self.codec.encode(message))

    async def receive(self) -> CloudMessage:
        async with asyncio.timeout(PATIENCE):
            return self.codec.decode_cloud(await self.socket.recv())

    async def hello(self, engine: ScriptedEngine | None) -> Welcome:
        info = None if engine is None else engine.info
        await self.send(
            Hello(
                1,
                "test",
                tokenizer="" if info is None else info.tokenizer_fingerprint,
                template="" if info is None else info.template_fingerprint,
            )
        )
        welcome = await self.receive()
        assert isinstance(welcome, Welcome)
        return welcome

    async def until_terminal(self, name: str) -> list[CloudMessage]:
        """All messages of one generation up to its end; those of others must not come between."""
        messages: list[CloudMessage] = []
        while not messages or not terminal(messages[-1]):
            messages.append(await self.receive())
            assert getattr(messages[-1], "id", name) == name
        return messages

    async def until_closed(self) -> tuple[list[CloudMessage], int | None]:
        """All that is still said, and the close code; None where the connection was lost without one."""
        messages: list[CloudMessage] = []
        try:
            while True:
                messages.append(await self.receive())
        except ConnectionClosed as closed:
            return messages, None if closed.rcvd is None else closed.rcvd.code


@contextlib.asynccontextmanager
async def _device(
    running: Running,
    *,
    subprotocol: str = "pd.v1",
    text: bool = False,
    hello: bool = True,
    secure: ssl.SSLContext | None = None,
    **options: Any,
) -> Any:
    # The library reads the answer to its close frame only once it has room for the messages that came before.
    options = {"close_timeout": 0.2, **options}
    url = running.ws_url if secure is None else running.ws_url.replace("ws:", "wss:")
    async with connect(url, subprotocols=[subprotocol], ssl=secure, **options) as socket:  # type: ignore[list-item]
        device = Device(socket)
        if hello:
            await device.hello(None if text else running.engine)
        yield device


@pytest.fixture(name="until")
def until_condition() -> Callable[[Callable[[], bool]], Any]:
    """`await until(condition)`: at most PATIENCE."""
    return until


@pytest.fixture
def device() -> Callable[..., Any]:
    """`async with device(running, subprotocol=…, text=…, hello=…) as one:` a connected Device."""
    return _device


def _http(running: Running, path: str, body: bytes | None = None, **headers: str) -> tuple[int, str]:
    with contextlib.closing(http.client.HTTPConnection(running.host, running.port, timeout=PATIENCE)) as connection:
        connection.request("GET" if body is None else "POST", path, body, headers)
        response = connection.getresponse()
        return response.status, response.read().decode()


@pytest.fixture(name="http")
def http_request() -> Callable[..., tuple[int, str]]:
    """`http(running, path, body, header=…)`: the status and the body of a plain request."""
    return _http


def _key_file(path: Path, keys: dict[str, str]) -> Path:
    """Holds `keys`, which have no limits of their own."""
    tables = [f'[keys.{name}]\nsha256 = "{digest(key)}"\ncreated = 2026-01-01\n' for name, key in keys.items()]
    path.write_text("\n".join(tables))
    return path


def _serve(
    engine: ScriptedEngine, settings: Settings, send_buffer: int | None, refinery: Refinery | None
) -> contextlib.AbstractContextManager[Running]:
    def prepare(loop: asyncio.AbstractEventLoop, host: str, port: int) -> tuple[CloudServer, asyncio.Event, Running]:
        app = create_app(settings, engine, refinery)
        service = app.state.service
        server = CloudServer(app, service, settings)
        return server, service.settled, Running(service, engine, server, loop, host, port)

    return in_thread(prepare, host=settings.host, patience=PATIENCE, send_buffer=send_buffer)


@pytest.fixture
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Running]]:
    """`serve(engine, max_grant=…)`: a running service with these settings, shut down at the end of the test; `keys`
    are the keys themselves, by name."""
    with contextlib.ExitStack() as stack:

        def start(
            engine: ScriptedEngine | None = None,
            *,
            send_buffer: int | None = None,
            refinery: Refinery | None = None,
            **options: Any,
        ) -> Running:
            defaults: dict[str, Any] = {"model": "scripted", "linger_ms": 0.0, "drain_ms": 2000.0}
            keys: dict[str, str] = options.pop("keys", {})
            if keys:
                options["key_file"] = _key_file(tmp_path_factory.mktemp("keys") / "keys.toml", keys)
            settings = Settings(**{**defaults, **options})
            served = engine if engine is not None else ScriptedEngine(answer_length=100_000)
            return stack.enter_context(_serve(served, settings, send_buffer, refinery))

        yield start
