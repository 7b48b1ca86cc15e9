"""A clock that stands still while a generation is paused: no deadline passes, and a pause is no gap. Pure."""

from __future__ import annotations

import math


class PausableClock:
    """Turns the driver's time into the generation's own, and back. Seconds."""

    def __init__(self) -> None:
        self._behind = 0.0
        self._paused_at: float | None = None
        self._latest = -math.inf

    @property
    def paused(self) -> bool:
        return self._paused_at is not None

    def at(self, now: float) -> float:
        """The generation's time when the driver's is `now`."""
        time = (now if self._paused_at is None else self._paused_at) - self._behind
        self._latest = max(self._latest, time)  # rounding must not take it back
        return self._latest

    def outside(self, time: float) -> float:
        """The driver's time when the generation's will be `time`, if nobody pauses it before."""
        outside = time + self._behind
        while outside - self._behind < time:  # rounding must not make a timer come a moment too early, for ever
            outside = math.nextafter(outside, math.inf)
        return outside

    def pause(self, now: float) -> None:
        if self._paused_at is None:
            self._paused_at = now

    def resume(self, now: float) -> None:
        if self._paused_at is not None:
            self._behind += now - self._paused_at
            self._paused_at = None
