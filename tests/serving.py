"""A server in a thread of this process."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Protocol, TypeVar

from http_api.serving import DrainingServer, listen


class Stoppable(Protocol):
    def terminate(self) -> None:
        """What SIGTERM does."""
        ...


RunningT = TypeVar("RunningT", bound=Stoppable)
#: Makes, on the server's loop: the server, what to wait for before it counts as running, and what is yielded for it.
Prepare = Callable[[asyncio.AbstractEventLoop, str, int], tuple[DrainingServer, asyncio.Event | None, RunningT]]


@contextlib.contextmanager
def in_thread(
    prepare: Prepare[RunningT], *, host: str = "127.0.0.1", patience: float, send_buffer: int | None = None
) -> Iterator[RunningT]:
    """Serve on a free port of `host`; terminated at the end. `patience` in seconds, for the start and for the end."""
    ready: Future[RunningT] = Future()

    async def work() -> None:
        with listen(host, 0) as listener:
            if send_buffer is not None:  # connections inherit it
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
            address: tuple[str, int] = listener.getsockname()[:2]
            server, settled, running = prepare(asyncio.get_running_loop(), *address)
            task = asyncio.create_task(server.serve(sockets=[listener]))
            if settled is not None:
                await settled.wait()
            ready.set_result(running)
            await task

    async def work_or_say_why() -> None:
        try:
            await work()
        except BaseException as error:
            if ready.done():
                raise
            ready.set_exception(error)

    thread = threading.Thread(target=asyncio.run, args=(work_or_say_why(),), name="server")
    thread.start()
    running = ready.result(patience)
    try:
        yield running
    finally:
        running.terminate()
        thread.join(patience)
        assert not thread.is_alive(), "the server did not shut down"
