"""uvicorn as these servers need it: a socket without delays, the fastest loop there is, a drain before the end."""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import os
import socket
from collections.abc import Awaitable, Callable, Coroutine
from types import FrameType
from typing import Any, TypeVar

import uvicorn

ResultT = TypeVar("ResultT")


def run(main: Coroutine[Any, Any, ResultT]) -> ResultT:
    """As `asyncio.run`, on uvloop where it is installed (not on Windows), whose loop costs less."""
    if importlib.util.find_spec("uvloop") is None:
        return asyncio.run(main)
    import uvloop

    return uvloop.run(main)


def settle_heap() -> None:
    """What is there now stays, so that the garbage collector need not look at it again; and it looks seldom at what
    comes: tokens leave no cycles behind, and one look at everything is many late tokens. A pass of a thousand tokens
    makes some 6,000 objects, which should be gone before it looks; 50,000 take it 30 ms. For a process that only
    serves, once it is ready to."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 50, 50)


def listen(host: str, port: int) -> socket.socket:
    """A socket for `DrainingServer.serve(sockets=[…])`. Raises OSError.

    It says that it is TCP: asyncio turns Nagle's algorithm off only on connections of such a socket, and with it on,
    a token would wait for the acknowledgement of the one before.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if os.name == "posix":  # elsewhere it would let two processes share the port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen()
    except OSError:
        listener.close()
        raise
    return listener


def url_of(listener: socket.socket, scheme: str = "http") -> str:
    """Where clients find whoever listens."""
    host, port = listener.getsockname()[:2]
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"


class DrainingServer(uvicorn.Server):
    """Serves on the event loop that it is made on. A first SIGTERM or SIGINT awaits `drain`, while connections are
    still open, and then closes them; a second one calls `hurry`, on that loop, and does not wait for what runs."""

    def __init__(
        self, config: uvicorn.Config, *, drain: Callable[[], Awaitable[None]], hurry: Callable[[], None]
    ) -> None:
        super().__init__(config)
        self._drain = drain
        self._hurry = hurry
        self._loop = asyncio.get_running_loop()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Unlike uvicorn's, does not raise the signal again at the end: a drained server has ended well."""
        if self.should_exit:
            self.force_exit = True
            self._loop.call_soon_threadsafe(self._hurry)
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await self._drain()
        await super().shutdown(sockets)
