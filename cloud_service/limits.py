"""Per caller: how many generations at once, and how many started per minute. Pure: the time is passed in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cloud_service.auth import Caller

#: Callers without a running generation are forgotten beyond this number, the longest unseen first.
MAX_IDLE_CALLERS = 10_000


@dataclass(frozen=True, slots=True)
class LimitReached:
    """Why a caller may not start another generation now."""

    message: str
    #: When it may; None where that depends on when one of its own generations ends.
    retry_after_s: float | None


@dataclass(slots=True)
class _Account:
    running: int = 0
    #: A token bucket: generations that may start at once, as of `updated`.
    allowance: float = 0.0
    updated: float = 0.0


@dataclass(slots=True)
class CallerLimits:
    """Counts the generations of each caller."""

    max_concurrent: int
    per_minute: int | None
    _accounts: dict[str, _Account] = field(default_factory=dict)

    def admit(self, caller: Caller, now: float) -> LimitReached | None:
        """Count one more generation of `caller`, to be ended by `release`; or say why not. `now` is in seconds."""
        account = self._accounts.pop(caller.name, None) or _Account(allowance=float(self.per_minute or 0), updated=now)
        self._accounts[caller.name] = account  # last seen, so last forgotten
        if account.running >= self.max_concurrent:
            return LimitReached(f"{account.running} generations are running, the most allowed at once", None)
        if self.per_minute is not None:
            refill = (now - account.updated) * self.per_minute / 60
            account.allowance = min(float(self.per_minute), account.allowance + refill)
            account.updated = now
            if account.allowance < 1:
                wait = (1 - account.allowance) * 60 / self.per_minute
                return LimitReached(f"more than {self.per_minute} generations started in a minute", wait)
            account.allowance -= 1
        account.running += 1
        self._forget_idle()
        return None

    def release(self, caller: Caller) -> None:
        """One generation that was admitted has ended."""
        self._accounts[caller.name].running -= 1

    def running(self, caller: Caller) -> int:
        account = self._accounts.get(caller.name)
        return account.running if account else 0

    def _forget_idle(self) -> None:
        if len(self._accounts) <= MAX_IDLE_CALLERS:
            return
        name = next((name for name, account in self._accounts.items() if account.running == 0), None)
        if name is not None:
            del self._accounts[name]
