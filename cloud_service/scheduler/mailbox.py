"""How other threads tell the engine's thread what to do."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TypeAlias

from cloud_service.scheduler.generation import Generation
from cloud_service.scheduler.slack import Report


@dataclass(frozen=True, slots=True)
class Begin:
    generation: Generation


@dataclass(frozen=True, slots=True)
class ExtendGrant:
    key: int
    grant: int


@dataclass(frozen=True, slots=True)
class Reported:
    """A device said how far it has got."""

    key: int
    report: Report


@dataclass(frozen=True, slots=True)
class Leave:
    """End it now. `tell`: its listener still wants the terminal event."""

    key: int
    tell: bool


@dataclass(frozen=True, slots=True)
class Resume:
    """Nobody took what was handed over: go on here."""

    key: int


@dataclass(frozen=True, slots=True)
class Drain:
    """Hold no grant open any more."""


@dataclass(frozen=True, slots=True)
class Close:
    """End everything."""


Command: TypeAlias = Begin | ExtendGrant | Reported | Leave | Resume | Drain | Close


class Mailbox:
    """Commands in order. Thread-safe."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._commands: list[Command] = []
        self._reports: dict[int, Reported] = {}

    def note(self, reported: Reported) -> None:
        """The latest word of a device, which replaces its last one. Nobody is woken for it: it matters to the next
        pass, if there is one."""
        with self._changed:
            self._reports[reported.key] = reported

    def put(self, command: Command) -> None:
        with self._changed:
            self._commands.append(command)
            self._changed.notify()

    def take(self, wait: float | None) -> list[Command]:
        """All commands so far, then all reports; waits up to `wait` seconds (None: as long as it takes) for a first
        command."""
        with self._changed:
            if not self._commands and wait != 0:
                self._changed.wait(wait)
            commands, self._commands = [*self._commands, *self._reports.values()], []
            self._reports.clear()
            return commands
