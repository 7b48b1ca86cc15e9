"""The cloud's side of a generation: what was asked, what came, and how long to wait for more. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from device_sdk.generation.plan import Patience
from speed_controller.estimates import CloudForecast


@dataclass(frozen=True, slots=True)
class NotAsked:
    """Nothing was asked of the cloud (yet)."""


@dataclass(slots=True)
class Open:
    """Attempt `number` is under way: `received` of `grant` tokens came, after `base` tokens of output."""

    number: int
    base: int
    grant: int
    asked_at: float
    last_at: float
    received: int = 0
    #: `stop` was sent; what is still on its way counts until the device supplies a token.
    stopping: bool = False
    #: The device has supplied a token since: what comes from here continues another text.
    superseded: bool = False
    extended: bool = False
    told_at: float | None = None

    @property
    def remaining(self) -> int:
        return 0 if self.stopping else max(self.grant - self.received, 0)


@dataclass(frozen=True, slots=True)
class Waiting:
    """Refused or lost; asking again at `until`."""

    until: float


@dataclass(frozen=True, slots=True)
class GrantUsed:
    """The last attempt gave all it was allowed; the answer goes on."""


@dataclass(frozen=True, slots=True)
class Gone:
    """Refused, lost or broken, and not to be asked again."""

    message: str


CloudState = NotAsked | Open | Waiting | GrantUsed | Gone


@dataclass(slots=True)
class CloudTrack:
    forecast: CloudForecast
    patience: Patience
    state: CloudState = field(default_factory=NotAsked)
    attempts: int = 0
    busy_ms: float | None = None
    #: (time, tokens allowed in all) for the report.
    grants: list[tuple[float, int]] = field(default_factory=list)
    allowed: int = 0

    def open(self, *, base: int, grant: int, now: float) -> Open:
        self.attempts += 1
        self.state = Open(self.attempts, base, grant, asked_at=now, last_at=now)
        self._allow(base + grant, now)
        return self.state

    def extend(self, attempt: Open, grant: int, now: float) -> None:
        attempt.grant = grant
        self._allow(attempt.base + grant, now)

    def _allow(self, tokens: int, now: float) -> None:
        self.allowed = max(self.allowed, tokens)
        self.grants.append((now, self.allowed))

    def current(self, number: int) -> Open | None:
        """The attempt under way, if it is `number`."""
        return self.state if isinstance(self.state, Open) and self.state.number == number else None

    def received(self, attempt: Open, count: int, now: float) -> None:
        if attempt.received == 0:
            self.forecast.observe_first_token(now - attempt.asked_at)
        self.forecast.observe_arrival(now, count)
        attempt.received += count
        attempt.last_at = now

    def add_busy(self, milliseconds: float) -> None:
        self.busy_ms = (self.busy_ms or 0.0) + milliseconds

    def deadline(self) -> float | None:
        """When the wait under way has lasted too long (or, refused, when to ask again)."""
        match self.state:
            case Open() as attempt if attempt.received == 0:
                return attempt.asked_at + self.patience.first_token
            case Open() as attempt:
                return attempt.last_at + self.patience.idle
            case Waiting(until=until):
                return until
            case _:
                return None
