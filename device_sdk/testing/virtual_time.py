"""Time that passes only when something happens: one heap of what is to come."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field

#: What may happen at one instant before it counts as turning in place.
MOST_AT_ONCE = 100_000


@dataclass(slots=True)
class EventLoop:
    """Pop the earliest event, move the clock there, let it happen; it may put in more. What falls on one instant
    happens in the order in which it was put in, ticks (`late`) after all else."""

    now: float = 0.0
    _heap: list[tuple[float, bool, int, Callable[[], object]]] = field(default_factory=list)
    _order: itertools.count[int] = field(default_factory=itertools.count)

    def at(self, time: float, happen: Callable[[], object], *, late: bool = False) -> None:
        """`happen` at `time`, in virtual seconds; never before now."""
        heapq.heappush(self._heap, (max(self.now, time), late, next(self._order), happen))

    def run_to(self, time: float) -> None:
        """All that falls up to `time`, which is then now."""
        self.run(lambda: self._heap[0][0] > time)
        self.now = max(self.now, time)

    def move_to(self, other: EventLoop) -> None:
        """What is still to come happens on `other` instead."""
        for time, late, _, happen in sorted(self._heap, key=lambda event: event[:3]):
            other.at(time, happen, late=late)
        self._heap.clear()

    def run(self, until: Callable[[], bool] = lambda: False, *, limit: float = float("inf")) -> None:
        """Until nothing is to come or `until()` holds. Raises RuntimeError beyond `limit` seconds, and where events
        follow one another without time getting on."""
        since, turns = self.now, 0
        heap = self._heap
        while heap and not until():
            self.now, _, _, happen = heapq.heappop(heap)
            turns = turns + 1 if self.now == since else 0
            since = self.now
            if turns > MOST_AT_ONCE:
                raise RuntimeError(f"events follow one another without time getting on, at {self.now:g} s")
            if self.now > limit:
                raise RuntimeError(f"not at its end after {limit:g} s")
            happen()
