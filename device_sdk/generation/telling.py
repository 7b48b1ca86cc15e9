"""When a device has something new to tell the service of where it stands. Pure.

Dead reckoning: the service reckons on from what it was told last, and is told again once that has become wrong. A
device that shows its tokens as it said it would has nothing to add, which spares its radio and the service's time.
"""

from __future__ import annotations

from dataclasses import dataclass

#: The buffer's end may be off by so many tokens' time: what was shown is counted in whole tokens, which is one already.
OFF_BY_TOKENS = 2.0
#: And the time when the device is ready by this share of what is left until then.
OFF_BY_SHARE = 0.2


@dataclass(frozen=True, slots=True)
class Told:
    """What the service knows. Times in seconds; `shown` counts tokens, `pace` is for one, 0 where it does not pace."""

    at: float
    shown: int
    pace: float
    #: When the device expects to need the cloud no more; None where it cannot tell.
    ready_at: float | None

    def holds(self, now: Told, received: int) -> bool:
        """Whether who was told this expects what is so now, of a device that has received so many tokens."""
        if (self.pace == 0) != (now.pace == 0) or (self.ready_at is None) != (now.ready_at is None):
            return False
        least = OFF_BY_TOKENS * now.pace
        if now.pace and abs(self._dry_at(received) - now._dry_at(received)) > least:
            return False
        if self.ready_at is None or now.ready_at is None:
            return True
        return abs(self.ready_at - now.ready_at) <= max(least, OFF_BY_SHARE * (now.ready_at - now.at))

    def stale(self, now: Told, received: int, *, at_least_every: float) -> bool:
        """Whether to tell `now` instead: this is wrong, or so many seconds old."""
        return now.at >= self.at + at_least_every or not self.holds(now, received)

    def _dry_at(self, received: int) -> float:
        """When it runs out of tokens, if no more come."""
        return self.at + max(0, received - self.shown) * self.pace
