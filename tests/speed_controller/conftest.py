"""A driver in virtual time, as simple as a driver can be: what the SDK does with a clock and a worker."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from speed_controller import PaceSettings, SpeedController

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


@dataclass
class Shown:
    """What a drive showed, and when each token had arrived."""

    times: list[float] = field(default_factory=list)
    arrivals: list[float] = field(default_factory=list)
    extensions: list[tuple[float, int]] = field(default_factory=list)

    @property
    def gaps(self) -> list[float]:
        return [b - a for a, b in pairwise(self.times)]

    @property
    def waited(self) -> list[bool]:
        """For each gap: whether its token came so late that the gap was not the controller's choice."""
        return [at - arrival < 1e-9 for at, arrival in zip(self.times[1:], self.arrivals[1:], strict=True)]


class Driver:
    """Plays events (time, what to call) into a controller and shows tokens exactly when they are due."""

    def __init__(self, settings: PaceSettings) -> None:
        self.controller = SpeedController(settings, submitted=0.0)
        self.shown = Shown()
        self.tell: Callable[[SpeedController, float], None] | None = None

    def play(self, events: Iterable[tuple[float, Callable[[SpeedController, float], object]]]) -> Shown:
        for at, event in sorted(events, key=lambda item: item[0]):
            self._show_until(at)
            arrived = self.controller.shown + self.controller.buffered
            event(self.controller, at)
            new = self.controller.shown + self.controller.buffered - arrived
            self.shown.arrivals += [at] * new
            self._show(at)
        self._show_until(float("inf"))
        return self.shown

    def _show_until(self, limit: float) -> None:
        while (due := self.controller.next_due()) is not None and due < limit:
            assert self._show(due) >= 1, "due(next_due()) must show a token"

    def _show(self, now: float) -> int:
        count = self.controller.due(now)
        self.shown.times += [now] * count
        if count and self.tell:
            self.tell(self.controller, now)
        return count


@pytest.fixture(scope="session")
def driver() -> Callable[..., Driver]:
    """Makes a driver for pace settings."""
    return lambda **settings: Driver(PaceSettings(**settings))
