"""The refinement of a generation: what was asked for, what came, and whether one is still to be counted on. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from device_sdk.generation.inputs import Refined
from device_sdk.generation.plan import RefineWish
from device_sdk.generation.spans import size
from device_sdk.report import Guard
from speed_controller.estimates import CloudForecast, DeviceForecast
from speed_controller.split import refined_length

#: Once the cloud's tokens come, its prefill is over: a refinement that is later than expected by this share of its
#: time, or by so many seconds where that is more, is not counted on any more.
LATE = 0.5
LATE_SECONDS = 0.1


@dataclass(slots=True)
class RefinementTrack:
    """`wish` None: none is wanted, and none is accepted."""

    wish: RefineWish | None
    #: Tokens of the prompt.
    length: int
    forecast: CloudForecast
    stage: int = 0
    #: Stages used, and whether the last one was final.
    stages: int = 0
    final: bool = False
    guard: Guard | None = None
    reread: bool = False
    #: (time, share kept) for the report.
    history: list[tuple[float, float]] = field(default_factory=list)
    _asked_at: float | None = None
    _answered_at: float | None = None

    def asked(self, now: float) -> None:
        self._asked_at, self._answered_at = now, None
        self.stage, self.final = 0, False

    def answered(self, now: float) -> None:
        """A token came of the attempt that was asked."""
        if self._answered_at is None:
            self._answered_at = now

    @property
    def share(self) -> float:
        """Of the prompt, what a refinement is expected to keep; 1 where none is wanted."""
        return self.forecast.kept_of(self.wish.keep_ratio) if self.wish is not None else 1.0

    def objection(self, event: Refined) -> str | None:
        """Why `event` cannot be used."""
        if self.wish is None or self._asked_at is None:
            return "the service sent a refinement that nobody asked for"
        if self.final or event.stage <= self.stage:
            after = f"{'the final ' if self.final else ''}stage {self.stage}"
            return f"the service sent stage {event.stage} of the refinement after {after}"
        if not event.keep:
            return "the service sent a refinement that keeps nothing"
        last = 0
        for start, end in event.keep:
            if not last <= start < end <= self.length:
                within = f"{last}…{self.length}"
                return f"the service sent a refinement with the span {start}…{end}; expected one within {within}"
            last = end
        return None

    def used(self, event: Refined, kept: float, now: float) -> None:
        """`kept` is the share of the prompt that the device reads in all, as it now stands."""
        if not self.stages and self._asked_at is not None:
            available = event.guard.decision != "unavailable"
            after = now - self._asked_at if available else None
            self.forecast.observe_refinement(after, self.length, first_token=self._first_token)
        if event.guard.decision == "passed":
            self.forecast.observe_kept(size(event.keep) / self.length)
        self.stage, self.final, self.guard = event.stage, event.final, event.guard
        self.reread = event.reread
        self.stages += 1
        self.history.append((now, kept))

    def over(self, *, served: bool) -> None:
        """The attempt that was asked has ended; `served`: with all that was asked, so that what is missing will not
        come next time either."""
        if self._asked_at is not None and not self.stages and served:
            self.forecast.observe_refinement(None)
        self._asked_at = None

    @property
    def _first_token(self) -> float | None:
        """Seconds from the request to the first token; None: it has not come."""
        if self._asked_at is None or self._answered_at is None:
            return None
        return self._answered_at - self._asked_at

    def due_in(self, now: float) -> float | None:
        """Seconds until the first refinement is expected; None where none is to be counted on."""
        if self._asked_at is None or self.stages or not self.forecast.refines:
            return None
        usual = self.forecast.refinement_of(self.length, first_token=self._first_token) or 0.0
        due = self._asked_at + usual
        if now <= due:
            return due - now
        if self._answered_at is not None and now - max(due, self._answered_at) > max(LATE * usual, LATE_SECONDS):
            return None
        return now - due  # Late by some time, it is expected to take as long again.

    def give_up_at(self, patience: float | None) -> float | None:
        """Until when the device waits for its first refinement, `patience` seconds after it was asked for; None:
        not at all, or (`patience` None) as long as the attempt lasts."""
        if self._asked_at is None or self.stages or patience is None:
            return None
        return self._asked_at + patience if self.forecast.refines else None

    def awaited(self, now: float, patience: float | None) -> bool:
        """Whether the device may still wait for its first refinement."""
        if self._asked_at is None or self.stages:
            return False
        until = self.give_up_at(patience)
        return patience is None or (until is not None and now < until)

    def expected(self, left: int, least: int, reading: float | None, device: DeviceForecast) -> int:
        """Of `left` prompt tokens, how many the device will read in all if a refinement finds it after `reading`
        seconds of prefill; None: none will."""
        per_token = device.ready_in(1)
        if self.wish is None or reading is None or not per_token or not left:
            return left
        return refined_length(left, keep_ratio=self.share, arrival=reading, prefill_rate=1.0 / per_token, least=least)
