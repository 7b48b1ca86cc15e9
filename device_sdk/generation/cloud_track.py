"""The cloud's side of a generation: what was asked, what came, and how long to wait for more. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from device_sdk.generation.commands import AskCloud, Command, ExtendCloud, StopCloud, TellProgress
from device_sdk.generation.output import Output
from device_sdk.generation.plan import Patience
from device_sdk.generation.telling import Told
from device_sdk.report import Source
from speed_controller.estimates import CloudForecast

#: Seconds before the first, second, … further attempt of an answer that only the cloud can finish.
RETRY_DELAYS = (0.0, 0.5, 2.0)


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
    #: Of the grant, what was added for thinking, which the user does not see.
    given_back: int = 0
    told: Told | None = None
    #: When it was last considered whether to tell anew.
    considered_at: float = 0.0

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
    #: Tokens of the prompt; None where nobody knows.
    prompt: int | None = None
    state: CloudState = field(default_factory=NotAsked)
    attempts: int = 0
    busy_ms: float | None = None
    #: (time, tokens allowed in all) for the report.
    grants: list[tuple[float, int]] = field(default_factory=list)
    allowed: int = 0
    #: The latest attempt that gave anything.
    giver: Open | None = None
    #: Tokens that it may give in all attempts together, and has given.
    limit: int | None = None
    given: int = 0

    def open(self, output: Output, grant: int, now: float, *, refine: bool) -> AskCloud:
        """Ask for up to `grant` tokens more."""
        grant = self._capped(grant)
        self.attempts += 1
        self.state = Open(self.attempts, len(output), grant, asked_at=now, last_at=now)
        self._allow(len(output) + grant, now)
        ids = output.token_ids
        complete = ids if len(ids) == len(output) else None
        return AskCloud(self.attempts, grant, complete, output.raw_text(), refine)

    def extend(self, attempt: Open, grant: int, now: float) -> list[Command]:
        """Raise the attempt's grant to `grant`, unless it is that high already."""
        grant = attempt.received + self._capped(grant - attempt.received)
        if grant <= attempt.grant:
            return []
        attempt.grant = grant
        self._allow(attempt.base + grant, now)
        return [ExtendCloud(attempt.number, grant)]

    def stop(self, reason: Literal["taken_over", "cancelled"]) -> list[Command]:
        """Let the attempt under way go, once; what is on its way still counts."""
        if not isinstance(self.state, Open) or self.state.stopping:
            return []
        self.state.stopping = True
        return [StopCloud(self.state.number, reason)]

    def settle(self, output: Output) -> list[Command]:
        """The answer is whole: tell who gave its beginning how long it became, where the device made the end of it."""
        if self.giver is None or not output.pieces or output.pieces[-1].source is Source.CLOUD:
            return []
        tokens = sum(piece.tokens for piece in output.pieces[self.giver.base :])
        return [StopCloud(self.giver.number, "taken_over", tokens)]

    def tell(self, received: int, shown: int, pace: float, ready_in: float | None, now: float) -> list[Command]:
        """Tell the service where the device stands, if it expects something else or was told long ago. `received` and
        `shown` count the whole output."""
        attempt = self.state
        if not isinstance(attempt, Open) or attempt.received == 0 or attempt.remaining == 0:
            return []
        told, patience = attempt.told, self.patience
        if told is not None and now < attempt.considered_at + patience.progress_every:
            return []
        attempt.considered_at = now
        stands = Told(now, shown, pace, None if ready_in is None else now + ready_in)
        if told is not None and not told.stale(stands, received, at_least_every=patience.progress_at_least_every):
            return []
        attempt.told = stands
        return [TellProgress(attempt.number, received, shown, pace, ready_in)]

    def gone(self, message: str, now: float, *, retry_in: float | None, alone: bool) -> bool:
        """The attempt under way is over without an end. Ask again (in `retry_in` s at least; None: that cannot help)
        only where the cloud is `alone`, as nobody else can finish. Returns whether anybody has to know."""
        if isinstance(self.state, Open) and self.state.stopping:
            self.state = GrantUsed()
            return False
        left = self.attempts < self.patience.cloud_attempts
        if alone and left and retry_in is not None and retry_in <= self.patience.first_token:
            delay = RETRY_DELAYS[min(self.attempts - 1, len(RETRY_DELAYS) - 1)]
            self.state = Waiting(now + max(retry_in, delay))
        else:
            self.state = Gone(message)
        return True

    @property
    def spent(self) -> bool:
        """Whether it has given all that it may."""
        return self.limit is not None and self.given >= self.limit

    def _capped(self, tokens: int) -> int:
        """Of `tokens` more, those that it may still give."""
        return tokens if self.limit is None else min(tokens, max(self.limit - self.given, 0))

    def _allow(self, tokens: int, now: float) -> None:
        self.allowed = max(self.allowed, tokens)
        self.grants.append((now, self.allowed))

    def current(self, number: int) -> Open | None:
        """The attempt under way, if it is `number`."""
        return self.state if isinstance(self.state, Open) and self.state.number == number else None

    def misfit(self, attempt: Open, first: int, count: int) -> str | None:
        """What is wrong with `count` tokens from number `first` on."""
        if first == attempt.received and 1 <= count <= attempt.grant - attempt.received:
            return None
        return f"the service sent {count} from token {first}; expected token {attempt.received} of {attempt.grant}"

    def received(self, attempt: Open, count: int, now: float) -> None:
        if attempt.received == 0:
            read = None if self.prompt is None else self.prompt + attempt.base
            self.forecast.observe_first_token(now - attempt.asked_at, read)
        self.forecast.observe_arrival(now, count)
        attempt.received += count
        self.given += count
        attempt.last_at = now
        self.giver = attempt

    def add_busy(self, milliseconds: float) -> None:
        self.busy_ms = (self.busy_ms or 0.0) + milliseconds

    def progress_due(self) -> float | None:
        """When `tell` is to consider again whether there is something to say."""
        attempt = self.state
        if isinstance(attempt, Open) and attempt.told is not None and attempt.remaining > 0:
            return attempt.considered_at + self.patience.progress_every
        return None

    def overdue(self, attempt: Open) -> str | None:
        """At its deadline: what the attempt owes. Where only the closing word is missing, it has ended."""
        if attempt.remaining == 0:
            self.state = GrantUsed()
            return None
        if attempt.received == 0:
            return f"no first token from the cloud within {self.patience.first_token:g} s"
        return f"no token from the cloud within {self.patience.idle:g} s"

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
