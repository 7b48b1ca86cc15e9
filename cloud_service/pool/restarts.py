"""When a process that has died is replaced, and when no more. Pure: times are passed in, in seconds."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """A crash is replaced at once or nearly so, one after another ever later, and too many of them not at all: a model
    that kills its process would do nothing else for ever."""

    #: So many crashes within `window` are one too many.
    limit: int = 5
    window: float = 600.0
    #: The delay before a replacement starts; twice as long for each crash of the last `burst` seconds before it.
    first_delay: float = 0.25
    longest_delay: float = 30.0
    burst: float = 60.0


@dataclass(slots=True)
class Restarts:
    """The crashes of one instance."""

    policy: RestartPolicy = field(default_factory=RestartPolicy)
    total: int = 0
    _crashes: deque[float] = field(default_factory=deque)

    def crashed(self, now: float) -> float | None:
        """Seconds until its replacement starts; None to give up."""
        policy = self.policy
        self.total += 1
        self._crashes.append(now)
        while self._crashes[0] <= now - policy.window:
            self._crashes.popleft()
        if len(self._crashes) >= policy.limit:
            return None
        lately = sum(crash > now - policy.burst for crash in self._crashes)
        return min(policy.longest_delay, policy.first_delay * 2.0 ** (lately - 1))
