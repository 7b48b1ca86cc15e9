"""One engine process as the service sees it: started, fed, listened to, and killed where it says nothing."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Sequence

import msgspec

from cloud_service.pool import frames

logger = logging.getLogger(__name__)

COMMAND: tuple[str, ...] = (sys.executable, "-m", "cloud_service.pool.worker")

#: Seconds for the first word, before which Python has to start and import everything.
_FIRST_WORD = 180.0
#: And for its end after its last word.
_EXIT = 2.0
_READ = 1 << 18


class EngineProcess:
    """Belongs to one event loop. Lives for one `run`."""

    def __init__(self, command: Sequence[str], hear: Callable[[frames.FromEngine], None], *, silence: float) -> None:
        """`hear` gets its frames. `silence`: seconds without a word, or in one pass, after which it is killed."""
        self._command = command
        self._hear = hear
        self._silence = silence
        self._process: Process | None = None
        self._why = ""

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    async def run(self, load: frames.Load) -> str:
        """Until the process has ended; returns why, in words. Cancelling this kills it."""
        try:
            process = self._process = await asyncio.create_subprocess_exec(*self._command, stdin=PIPE, stdout=PIPE)
        except OSError as error:
            return f"it cannot be started: {error}"
        try:
            self.say(load)
            await self._listen(process)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.0 if self._why else _EXIT):
                    await process.wait()
        finally:
            self.kill("")
            await process.wait()
        return self._why or _cause(process.returncode or 0)

    def say(self, frame: frames.ToEngine) -> None:
        """Harmless where it has ended."""
        process = self._process
        if process is not None and process.stdin is not None and not process.stdin.is_closing():
            process.stdin.write(frames.encode(frame))

    def end(self) -> None:
        """Let it end: it frees everything and goes."""
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()

    def kill(self, why: str) -> None:
        """At once."""
        self._why = self._why or why
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    async def _listen(self, process: Process) -> None:
        splitter = frames.Splitter()
        output = process.stdout
        if output is None:
            raise RuntimeError("the process was started without a pipe for its output")
        patience = max(_FIRST_WORD, self._silence)
        while True:
            try:
                async with asyncio.timeout(patience):
                    data = await output.read(_READ)
            except TimeoutError:
                self._why = f"it said nothing for {patience:g} s"
                return
            if not data:
                return
            patience = self._silence
            for raw in splitter.feed(data):
                try:
                    frame = frames.from_engine.decode(raw)
                except msgspec.MsgspecError as error:
                    self._why = f"it said what cannot be understood: {error}"
                    return
                self._heed(frame)

    def _heed(self, frame: frames.FromEngine) -> None:
        if isinstance(frame, frames.State) and frame.pass_s > self._silence:
            self.kill(f"one pass took more than {self._silence:g} s")
        elif isinstance(frame, frames.NotLoaded | frames.Broke):
            self._why = self._why or frame.message
        self._hear(frame)


def _cause(code: int) -> str:
    return f"it was killed by signal {-code}" if code < 0 else f"it ended with code {code}"
