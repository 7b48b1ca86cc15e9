"""The one thread of an engine process that talks to the service, and that everything it says is made on."""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from collections.abc import Callable

from cloud_service.pool import frames

logger = logging.getLogger(__name__)


class Outbox:
    """`post`, `say` and `end` may be called from any thread; what they do happens in order."""

    def __init__(self, output: int) -> None:
        """`output`: a file descriptor, to be written here alone."""
        self._output = output
        self._calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._pending = bytearray()
        self._given: list[tuple[int, tuple[int, ...]]] = []

    def start(self, state: Callable[[], frames.State]) -> None:
        """`state` is called on the thread, and what it returns said, every `frames.WORD_EVERY` seconds."""
        threading.Thread(target=self._run, args=(state,), name="outbox", daemon=True).start()

    def post(self, call: Callable[[], None]) -> None:
        """Call it on the thread. What it raises ends the process."""
        self._calls.put(call)

    def say(self, frame: frames.FromEngine) -> None:
        self.post(lambda: self.say_now(frame))

    def say_now(self, frame: frames.FromEngine) -> None:
        """From the thread itself: before anything that was posted meanwhile."""
        self._gather()
        self._pending += frames.encode(frame)

    def give_now(self, key: int, ids: tuple[int, ...]) -> None:
        """Output tokens of generation `key`, from the thread itself; said together with others."""
        self._given.append((key, ids))

    def _gather(self) -> None:
        if self._given:
            self._pending += frames.encode(frames.Gave(tuple(self._given)))
            self._given.clear()

    def end(self, code: int) -> None:
        """End the process, once all that was posted so far is done and said."""

        def leave() -> None:
            self._write()
            os._exit(code)

        self.post(leave)

    def _run(self, state: Callable[[], frames.State]) -> None:
        try:
            due = time.monotonic()
            while True:
                self._wait(due - time.monotonic())
                if time.monotonic() >= due:
                    due = time.monotonic() + frames.WORD_EVERY
                    self.say_now(state())
                self._write()
        except BaseException:
            logger.exception("the engine process failed")
            os._exit(1)

    def _wait(self, seconds: float) -> None:
        """Do what was posted, and all that is there by then, so that it leaves with one write."""
        try:
            call = self._calls.get(timeout=max(0.0, seconds))
            while True:
                call()
                call = self._calls.get_nowait()
        except queue.Empty:
            return

    def _write(self) -> None:
        self._gather()
        data, self._pending = memoryview(self._pending), bytearray()
        try:
            while data:
                data = data[os.write(self._output, data) :]
        except BrokenPipeError:
            pass  # the service is gone: the end of the input says so, too, and ends this process
