"""The cloud's side of the demo: a real `pd-cloud serve` process, started, watched, killed and started again."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from demos.side_by_side.errors import CloudError, DemoError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from types import TracebackType
    from typing import Self

#: Seconds that a terminated process has before it is killed.
GRACE = 5.0
_LOG_LINES_SHOWN = 4
#: What `pd-cloud` ends with when its settings are not usable or its model does not load: the caller's to put right.
_CALLERS_FAULT = (2, 3)

#: What to run before the arguments. Leashed: killed though this process be, the service does not outlive it.
PD_CLOUD = (sys.executable, "-m", "demos.side_by_side.leash", "cloud_service.cli")


@dataclass(frozen=True, slots=True)
class CloudSettings:
    """What `pd-cloud serve` is started with."""

    model: str
    log_file: Path
    engine: str = "auto"
    #: A hardware profile's name or file; None runs at the machine's own speed.
    emulate: str | None = None
    threads: int = 1
    #: A comparison asks the same question several times: what one answer left in the KV cache would help the next.
    prefix_cache: Literal["off", "key", "shared"] = "off"
    #: 0 takes a free one.
    port: int = 0
    #: Seconds until it must be ready; loading a large model takes its time.
    start_timeout: float = 120.0

    def arguments(self, port: int) -> list[str]:
        arguments = ["serve", "--json", "--model", self.model, "--engine", self.engine, "--port", str(port)]
        arguments += ["--threads", str(self.threads), "--prefix-cache", self.prefix_cache]
        if self.emulate is not None:
            arguments += ["--emulate", self.emulate]
        return arguments


class CloudProcess:
    """Entered: the service is ready. Left, for whatever reason: the process is gone."""

    def __init__(self, settings: CloudSettings, command: Sequence[str] = PD_CLOUD) -> None:
        self._settings = settings
        self._command = tuple(command)
        self._process: asyncio.subprocess.Process | None = None
        #: Fixed by the first start, so that whoever forwards to it finds it again after a restart.
        self.port = settings.port
        self._starts = 0

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        """Start and wait until it says that it is ready. Raises UsageError where the service refuses its settings or
        its model, CloudError where it ends otherwise or takes too long."""
        log = self._settings.log_file
        log.parent.mkdir(parents=True, exist_ok=True)
        # The service refuses variables that it does not know, and what is set for another one is not for this one.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PD_CLOUD_")}
        self._starts += 1
        with log.open("wb" if self._starts == 1 else "ab") as output:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                *self._settings.arguments(self.port),
                stdin=asyncio.subprocess.PIPE,  # held open and never written to: see leash.py
                stdout=asyncio.subprocess.PIPE,
                stderr=output,
                env=environment,
                # A session of its own: the terminal's Ctrl-C goes to the demo, which then ends it in good order.
                start_new_session=True,
            )
        try:
            self.port = await asyncio.wait_for(self._ready(self._process), self._settings.start_timeout)
        except TimeoutError:
            await self.stop()
            raise CloudError(
                f"the cloud process was not ready within {self._settings.start_timeout:g} s; {self._said()}"
            ) from None
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Ask it to end, and kill it if it does not. Harmless when it is gone already."""
        await self._end(signal.SIGTERM)

    async def kill(self) -> None:
        """As a crash or a power cut would: no farewell to anybody."""
        await self._end(signal.SIGKILL)

    async def _ready(self, process: asyncio.subprocess.Process) -> int:
        """The port that its ready line names."""
        assert process.stdout is not None  # noqa: S101 - a pipe was asked for
        line = await process.stdout.readline()
        with contextlib.suppress(ValueError, KeyError, TypeError):
            return int(json.loads(line)["port"])
        raise self._died(await process.wait())

    async def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(how)
        try:
            await asyncio.wait_for(process.wait(), GRACE)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    def _died(self, code: int) -> DemoError:
        if code in _CALLERS_FAULT:
            return UsageError(f"the cloud process did not start: {self._said()}")
        return CloudError(f"the cloud process ended with code {code} while it started: {self._said()}")

    def _said(self) -> str:
        """The end of its log, on one line, and where the rest is."""
        path = self._settings.log_file
        lines = [line.strip() for line in path.read_text(encoding="utf-8", errors="replace").splitlines()]
        last = " / ".join([line for line in lines if line][-_LOG_LINES_SHOWN:])
        return f"{last or 'it said nothing'} (log: {path})"
