"""Where all waiting happens: an event loop away from the screen's thread, and the way back from it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine

T = TypeVar("T")


class Job:
    """Work under way. Cancelled, it says nothing any more: neither result nor error."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.cancelled = False
        self._loop = loop
        self._task: asyncio.Task[None] | None = None

    def cancel(self) -> None:
        """Idempotent; from any thread."""
        self.cancelled = True
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._cancel)

    def begin(self, work: Callable[[], Coroutine[Any, Any, None]]) -> asyncio.Task[None] | None:
        """On the loop's thread; None where it was cancelled before."""
        if not self.cancelled:
            self._task = self._loop.create_task(work())
        return self._task

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()


class Background:
    """Runs coroutines on `loop`; what comes of them is handed to `post`, which calls it on the screen's thread.

    Tests pass their own running loop and `post=lambda call: call()`.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, post: Callable[[Callable[[], None]], None]) -> None:
        self._loop = loop
        self._post = post
        self._closed = False
        self._tasks: set[asyncio.Task[None]] = set()

    def close(self) -> None:
        """What is given from now on is dropped: the program ends, and a timer may still have fired."""
        self._closed = True

    def run(
        self,
        work: Callable[[], Coroutine[Any, Any, T]],
        then: Callable[[T], None] = lambda _: None,
        failed: Callable[[Exception], None] | None = None,
    ) -> Job:
        """`then` with the result of `work`, or `failed` with its error; an error that nobody takes is raised by
        `post`. Jobs begin in the order in which they were given."""
        job = Job(self._loop)

        async def watched() -> None:
            try:
                result = await work()
            except Exception as error:
                self._tell(job, failed or _raise, error)
            else:
                self._tell(job, then, result)

        return self._start(job, watched)

    def listen(
        self, items: AsyncGenerator[T, None], each: Callable[[T], None], ended: Callable[[Exception | None], None]
    ) -> Job:
        """`each` with every item, then `ended` with the error that ended it, or None. Cancelling closes `items`."""
        job = Job(self._loop)

        async def watched() -> None:
            problem = None
            try:
                async with aclosing(items):
                    async for item in items:
                        self._tell(job, each, item)
            except Exception as error:
                problem = error
            self._tell(job, ended, problem)

        return self._start(job, watched)

    def wait(self, work: Coroutine[Any, Any, None], within: float) -> None:
        """Only for the end of the program: blocks until `work` is done, or for `within` seconds."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        with contextlib.suppress(TimeoutError):
            future.result(within)

    def call(self, function: Callable[[], None]) -> None:
        """Run `function` on the loop's thread, soon."""
        if not self._closed:
            self._loop.call_soon_threadsafe(function)

    def post(self, function: Callable[[], None]) -> None:
        """Run `function` on the screen's thread, soon. Callable from any thread."""
        self._post(function)

    def _start(self, job: Job, work: Callable[[], Coroutine[Any, Any, None]]) -> Job:
        def begin() -> None:
            task = job.begin(work)
            if task is not None:
                # The loop itself holds tasks but weakly.
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

        self.call(begin)
        return job

    def _tell(self, job: Job, receiver: Callable[[T], None], value: T) -> None:
        def tell() -> None:
            # Cancelled meanwhile: whoever cancelled has gone on.
            if not job.cancelled:
                receiver(value)

        self._post(tell)


class LoopThread:
    """An event loop in a thread of its own."""

    def __init__(self, name: str) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._main, name=name, daemon=True)
        self._thread.start()

    def stop(self, within: float) -> None:
        """Cancel what still runs, wait for it for at most `within` seconds, end the thread."""

        async def end() -> None:
            tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=within) if tasks else None
            await self.loop.shutdown_asyncgens()
            self.loop.stop()

        asyncio.run_coroutine_threadsafe(end(), self.loop)
        self._thread.join(within + 1.0)

    def _main(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
        finally:
            self.loop.close()


def _raise(error: Exception) -> None:
    raise error
