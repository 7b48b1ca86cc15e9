"""One place for an engine process, and its replacement when it dies."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

from cloud_service.metrics import Occupancy
from cloud_service.pool import frames
from cloud_service.pool.families import Remembered
from cloud_service.pool.placement import Candidate
from cloud_service.pool.process import EngineProcess
from cloud_service.pool.restarts import RestartPolicy, Restarts
from cloud_service.pool.roles import Role
from model_runtime.core import EngineInfo

if TYPE_CHECKING:
    from cloud_service.pool.assignment import Leg

logger = logging.getLogger(__name__)


class Owner(Protocol):
    """Whoever has an instance. Called on the event loop."""

    def up(self, instance: Instance) -> None:
        """Its engine is loaded."""
        ...

    def hear(self, instance: Instance, frame: frames.FromEngine) -> None: ...

    def down(self, instance: Instance, why: str) -> None:
        """Its process is gone; a replacement comes unless `instance.phase` is `given up`."""
        ...


@dataclass(frozen=True, slots=True)
class Start:
    """How the processes of a pool are started."""

    command: Sequence[str]
    load: frames.Load
    policy: RestartPolicy
    #: Seconds in which a process must say something, and a pass must end.
    silence: float


@dataclass(slots=True, eq=False)
class Instance:
    """Belongs to one event loop."""

    number: int
    role: Role
    start: Start
    owner: Owner
    phase: Literal["starting", "ready", "down", "given up"] = "starting"
    #: Of the load, from 0 to 1.
    progress: float = 0.0
    info: EngineInfo | None = None
    occupancy: Occupancy = field(default_factory=Occupancy)
    #: What was offered to it and is not over, by key.
    legs: dict[int, Leg] = field(default_factory=dict)
    remembered: Remembered = field(default_factory=Remembered)
    #: Changes whenever something may have made it accept what it rejected before.
    epoch: int = 0
    restarts: Restarts = field(init=False)
    _process: EngineProcess | None = None
    _closing: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.restarts = Restarts(self.start.policy)

    @property
    def ready(self) -> bool:
        return self.phase == "ready"

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    def candidate(self, known: int) -> Candidate:
        backlog = sum(leg.backlog for leg in self.legs.values())
        return Candidate(self.number, self.role, len(self.legs), backlog, known)

    async def run(self) -> None:
        """Until it is closed or given up."""
        while not self._closing.is_set():
            self.phase, self.progress = "starting", 0.0
            process = self._process = EngineProcess(self.start.command, self._hear, silence=self.start.silence)
            try:
                why = await process.run(self.start.load)
            finally:
                self._process = self.info = None
                self.occupancy = Occupancy()
                self.remembered.forget()
            delay = None if self._closing.is_set() else self.restarts.crashed(time.monotonic())
            self.phase = "down" if delay is not None else "given up"
            self._tell(why, delay)
            self.owner.down(self, why)
            if delay is None:
                return
            try:
                async with asyncio.timeout(delay):
                    await self._closing.wait()
            except TimeoutError:
                continue

    def say(self, frame: frames.ToEngine) -> None:
        if self._process is not None:
            self._process.say(frame)

    def kill(self, why: str) -> None:
        if self._process is not None:
            self._process.kill(why)

    def close(self) -> None:
        """Let its process end; `run` then does."""
        self._closing.set()
        if self._process is not None:
            self._process.end()

    def _hear(self, frame: frames.FromEngine) -> None:
        match frame:
            case frames.Progressing(fraction=fraction):
                self.progress = fraction
            case frames.Loaded(info):
                self.phase, self.progress, self.info = "ready", 1.0, info
                self.epoch += 1
                logger.info("instance %d is ready", self.number)
                self.owner.up(self)
            case frames.State(occupancy):
                self.occupancy = occupancy
                self.owner.hear(self, frame)
            case _:
                self.owner.hear(self, frame)

    def _tell(self, why: str, delay: float | None) -> None:
        if self._closing.is_set():
            return
        if delay is None:
            logger.error("instance %d died too often (%s): it is not replaced any more", self.number, why)
        else:
            logger.warning("instance %d died (%s): its replacement starts in %.2f s", self.number, why, delay)
