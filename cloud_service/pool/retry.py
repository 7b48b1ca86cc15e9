"""How long someone who is turned away should wait before trying again. Pure: times are passed in, in seconds."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(slots=True)
class Departures:
    """How often generations have left instances lately."""

    #: So many are looked at.
    most: int = 32
    #: And none that is older than this.
    oldest: float = 60.0
    _times: deque[float] = field(default_factory=deque)

    def note(self, now: float) -> None:
        self._times.append(now)
        if len(self._times) > self.most:
            self._times.popleft()

    def interval(self, now: float) -> float | None:
        """Between two of them; None where too few were seen to tell."""
        lately = [time for time in self._times if time > now - self.oldest]
        if len(lately) < 2:
            return None
        # Up to now, so that a pool that stands still is not taken for one that goes on as it did.
        return (now - lately[0]) / len(lately)


def retry_after(hints: Iterable[float | None], ahead: int, interval: float | None) -> float | None:
    """Seconds until a newcomer would probably be accepted; None where nothing was measured.

    `hints`: what the instances said when they rejected it. `ahead`: others that wait already, each of which takes a
    place that becomes free, one in every `interval`.
    """
    soonest = min((hint for hint in hints if hint is not None), default=None)
    queue = None if interval is None else (ahead + 1) * interval
    known = [time for time in (soonest, queue) if time is not None and math.isfinite(time)]
    return max(known, default=None)
