"""A gateway over servers elsewhere: scripted ones, which fail as they are told to, and real ones."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from cloud_service.app import create_app
from cloud_service.server import CloudServer
from cloud_service.settings import Settings
from model_runtime.tokenizers import load_tokenizer
from tests.cloud_service.conftest import PATIENCE, Device, Running
from tests.cloud_service.conftest import _device as connected
from tests.serving import in_thread

#: What one request to `/v1/completions` does: writes to the connection; returning closes it unless `keep` is set.
Script = Callable[["Exchange"], Any]


@dataclass
class Exchange:
    """One request, and how it is answered."""

    body: dict[str, Any]
    headers: dict[str, str]
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    #: Set once the client has closed the connection.
    closed: threading.Event = field(default_factory=threading.Event)

    async def head(self, status: str = "200 OK", kind: str = "text/event-stream", *more: str) -> None:
        lines = [f"HTTP/1.1 {status}", f"content-type: {kind}", "connection: close", *more, "", ""]
        self.writer.write("\r\n".join(lines).encode())
        await self.writer.drain()

    async def event(self, data: dict[str, Any] | str) -> None:
        text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False)
        self.writer.write(f"data: {text}\n\n".encode())
        await self.writer.drain()

    async def pieces(self, ids: Sequence[int], finish: str | None, pause: float = 0.0) -> None:
        """Ids one by one, the last with how it ended; text stays empty, as it does inside a character."""
        for place, token in enumerate(ids):
            last = finish if place == len(ids) - 1 else None
            await self.event({"choices": [{"index": 0, "text": "", "token_ids": [token], "finish_reason": last}]})
            await asyncio.sleep(pause)

    async def end(self, prompt_tokens: int = 0, cached: int = 0) -> None:
        details = {"cached_tokens": cached}
        await self.event({"choices": [], "usage": {"prompt_tokens": prompt_tokens, "prompt_tokens_details": details}})
        await self.event("[DONE]")


async def counting(exchange: Exchange) -> None:
    """An engine whose next token is the number of tokens before it, up to `max_tokens`."""
    prompt, most = exchange.body["prompt"], exchange.body["max_tokens"]
    await exchange.head()
    await exchange.pieces([len(prompt) + place for place in range(most)], "length")
    await exchange.end(len(prompt), cached=3)


class Scripted:
    """A server like vLLM, whose answers to completions are `scripts`, one after another, the last one for ever."""

    def __init__(self) -> None:
        self.scripts: list[Script] = [counting]
        #: How it answers when it is asked what it offers.
        self.probed: Script = counting
        self.exchanges: list[Exchange] = []
        self.healthy = True
        self.owner = "vllm"
        self.model: dict[str, Any] = {"id": "toy", "max_model_len": 200}
        self.metrics = ""
        #: Connections that were opened.
        self.connections = 0
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def bodies(self) -> list[dict[str, Any]]:
        """Of the requests that were no probes."""
        return [exchange.body for exchange in self.exchanges if "seed" in exchange.body]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await self._answer(reader, writer)
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := (await reader.readuntil(b"\r\n\r\n")).decode():
            request, *lines = head.strip().split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
            body = await reader.readexactly(int(headers.get("content-length", 0)))
            path = request.split()[1]
            if path != "/v1/completions":
                self._plain(writer, path)
                continue
            exchange = Exchange(json.loads(body), headers, reader, writer)
            self.exchanges.append(exchange)
            probe = "seed" not in exchange.body
            script = self.probed if probe else self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0]
            watch = asyncio.create_task(self._notice_close(exchange))
            try:
                await script(exchange)
            finally:
                watch.cancel()
            return

    async def _notice_close(self, exchange: Exchange) -> None:
        if not await exchange.reader.read(1):
            exchange.closed.set()

    def _plain(self, writer: asyncio.StreamWriter, path: str) -> None:
        models = {"data": [{"owned_by": self.owner, **self.model}]}
        status, text = {
            "/health": ("200 OK" if self.healthy else "503 Service Unavailable", ""),
            "/v1/models": ("200 OK", json.dumps(models)),
            "/metrics": ("200 OK", self.metrics),
        }[path]
        writer.write(f"HTTP/1.1 {status}\r\ncontent-length: {len(text)}\r\n\r\n{text}".encode())


@pytest.fixture
def scripted() -> Iterator[Callable[[], Scripted]]:
    """`scripted()`: one more server, in a thread of this process."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="scripted")
    thread.start()
    listeners: list[asyncio.Server] = []

    def make() -> Scripted:
        server = Scripted()
        started = asyncio.run_coroutine_threadsafe(asyncio.start_server(server.serve, "127.0.0.1", 0), loop)
        listener = started.result(PATIENCE)
        listeners.append(listener)
        server.port = listener.sockets[0].getsockname()[1]
        return server

    yield make

    async def stop() -> None:
        for listener in listeners:
            listener.close()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0.05)  # closed connections say so in later rounds of the loop

    asyncio.run_coroutine_threadsafe(stop(), loop).result(PATIENCE)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(PATIENCE)
    loop.close()


@pytest.fixture
def gateway(tiny_model: Callable[[str], Any]) -> Iterator[Callable[..., Running]]:
    """`gateway(urls, max_grant=…)`: a service over servers elsewhere; its `engine` is their tokenizer's owner."""
    folder = tiny_model("llama")
    with contextlib.ExitStack() as stack:

        def start(urls: Sequence[str], **options: Any) -> Running:
            defaults = {"linger_ms": 0.0, "drain_ms": 2000.0, "upstream": "openai", "upstream_urls": tuple(urls)}
            settings = Settings(**{"model": str(folder), **defaults, **options})
            return stack.enter_context(_serve(settings))

        yield start


def _serve(settings: Settings) -> contextlib.AbstractContextManager[Running]:
    def prepare(loop: asyncio.AbstractEventLoop, host: str, port: int) -> tuple[CloudServer, asyncio.Event, Running]:
        app = create_app(settings)
        service = app.state.service
        server = CloudServer(app, service, settings)
        return server, service.settled, Running(service, None, server, loop, host, port)  # type: ignore[arg-type]

    return in_thread(prepare, host=settings.host, patience=PATIENCE)


@pytest.fixture
def client(tiny_model: Callable[[str], Any]) -> Callable[..., Any]:
    """`async with client(running, text=…) as one:` a Device with the tokenizer of the tiny model."""
    tokenizer = load_tokenizer(tiny_model("llama"))

    @contextlib.asynccontextmanager
    async def connect(running: Running, *, text: bool = False, **options: Any) -> Any:
        async with connected(running, hello=False, **options) as one:
            one.welcome = await _hello(one, None if text else tokenizer)
            yield one

    return connect


async def _hello(one: Device, tokenizer: Any) -> Any:
    from wire_protocol.messages import Hello

    prints = (
        {} if tokenizer is None else {"tokenizer": tokenizer.fingerprint, "template": tokenizer.template_fingerprint}
    )
    await one.send(Hello(1, "test", **prints))
    return await one.receive()
