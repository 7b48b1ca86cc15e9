"""Moving estimates of what the device and the cloud will do, from what they did. No clock: durations come in."""

from __future__ import annotations

import math
import statistics
from collections import deque
from dataclasses import dataclass

from speed_controller.errors import SettingError

#: Medians over this many passes. Of three, one outlier (the warm-up pass, another app's burst) does not move the
#: estimate, and a device that throttles shows with the second slow pass. Decode steps are many and jitter more.
PREFILL_PASSES = 3
DECODE_STEPS = 9
#: A pass over few tokens is bound by reading the weights: below this share of the one before, it says nothing of the
#: rate.
LARGE_PASS = 0.5
#: Arrivals over which the cloud's time per token is taken; a burst of the link among them changes little.
ARRIVALS = 16
ROUND_TRIPS = 5
#: Answers in a row that were begun without the cloud, as it seemed slow, until it is asked again.
LEFT_OUT = 8
#: Refinements that say how much the next one keeps: as much as the largest of them, as questions differ, and a grant
#: that is too small costs a pause.
REFINEMENTS = 4


class DeviceForecast:
    """The device's prefill rate and time per output token, as medians of its latest passes.

    `prefill_rate` (tokens per second) and `tpot` (seconds): what is believed beforehand, from a profile or an earlier
    answer; it counts as the oldest pass. Raises SettingError for values that are not finite and above 0.
    """

    def __init__(self, *, prefill_rate: float | None = None, tpot: float | None = None) -> None:
        self._prefills: deque[float] = deque(maxlen=PREFILL_PASSES)  # seconds per token
        self._decodes: deque[float] = deque(maxlen=DECODE_STEPS)
        self._usual = 0
        # The medians, kept because they are asked for more often than passes end.
        self._per_token: float | None = None
        self._tpot: float | None = None
        if prefill_rate is not None:
            self._prefills.append(1.0 / _positive("prefill_rate", prefill_rate))
            self._per_token = self._prefills[0]
        if tpot is not None:
            self._decodes.append(_positive("tpot", tpot))
            self._tpot = tpot

    def observe_prefill(self, tokens: int, seconds: float) -> None:
        """A prefill pass over `tokens` tokens took `seconds`."""
        if tokens < 1:
            raise SettingError("tokens", tokens, "at least 1")
        _duration("seconds", seconds)
        if tokens < LARGE_PASS * self._usual:
            return
        self._usual = tokens
        self._prefills.append(seconds / tokens)
        self._per_token = statistics.median(self._prefills)

    def observe_decode(self, seconds: float) -> None:
        """One decode step took `seconds`."""
        self._decodes.append(_duration("seconds", seconds))
        self._tpot = statistics.median(self._decodes)

    def ready_in(self, tokens_left: int) -> float | None:
        """Seconds that prefilling `tokens_left` more tokens takes, in proportion. None: the rate is not known."""
        return None if self._per_token is None else tokens_left * self._per_token

    def first_token_in(self, tokens_left: int, *, running: int = 0, elapsed: float = 0.0) -> float | None:
        """Seconds from now until `tokens_left` more tokens are prefilled and the device has its first own token: what
        `SpeedController.expect_device` wants to hear. None: nothing is known of the rate.

        `running` of them are in a pass that began `elapsed` seconds ago. Ask again while it runs: a pass that takes
        longer than believed tells of a slower device before it ends.
        """
        if not 0 <= running <= tokens_left:
            raise SettingError("running", running, f"0 to tokens_left, {tokens_left}")
        believed, after = self.ready_in(running), self.ready_in(tokens_left - running)
        if believed is None or after is None:
            return None
        if tokens_left > running:
            after = max(after, self.tpot or 0.0)  # however few tokens are left, a pass takes as long as a decode step
        if elapsed <= believed or running == 0:
            return believed - min(elapsed, believed) + after
        # Late by some time, it is expected to take as long again; what follows will be as slow.
        return elapsed - believed + after * elapsed / believed

    @property
    def tpot(self) -> float | None:
        """Seconds per output token; None: not known."""
        return self._tpot


@dataclass(frozen=True, slots=True)
class _Wait:
    """`seconds` from a request to what came of its prefill, of a prompt of `tokens` (None: nobody knows)."""

    seconds: float
    tokens: int | None = None

    def for_prompt(self, tokens: int, round_trip: float) -> float:
        if not self.tokens or tokens >= self.tokens:
            return self.seconds
        fixed = min(round_trip, self.seconds)
        return fixed + (self.seconds - fixed) * tokens / self.tokens


class CloudForecast:
    """The cloud as seen from the device: time to first token, time per token, round trip. Seconds; None: not known.

    The arguments are what is believed beforehand. Raises SettingError for values that are not finite and at least 0.
    """

    def __init__(
        self, *, ttft: float | None = None, tpot: float | None = None, round_trip: float | None = None
    ) -> None:
        self._first = None if ttft is None else _Wait(_duration("ttft", ttft))
        self._left_out = 0
        self._tpot = None if tpot is None else _duration("tpot", tpot)
        self._refined: _Wait | None = None
        self._refined_after: float | None = None
        self._refines: bool | None = None
        self._kept: deque[float] = deque(maxlen=REFINEMENTS)
        self._round_trips: deque[float] = deque(maxlen=ROUND_TRIPS)
        self._arrivals: deque[tuple[float, int]] = deque(maxlen=ARRIVALS)
        if round_trip is not None:
            self.observe_round_trip(round_trip)

    def observe_first_token(self, seconds: float, prompt_tokens: int | None = None) -> None:
        """An answer's first token came `seconds` after its request, whose prompt had `prompt_tokens` (None: nobody
        knows); the arrivals that follow are of this answer."""
        self._first = _Wait(_duration("seconds", seconds), prompt_tokens)
        self._left_out = 0
        self._tpot = self.tpot
        self._arrivals.clear()

    def observe_arrival(self, now: float, count: int = 1) -> None:
        """`count` tokens arrived together at `now`, in order of time."""
        if count < 1:
            raise SettingError("count", count, "at least 1")
        self._arrivals.append((now, count))

    def observe_left_out(self) -> None:
        """An answer was begun without this cloud, as the device was expected to be there first. What is known of the
        first token is forgotten after LEFT_OUT of them in a row: nobody else tells that a busy cloud is so no more."""
        self._left_out += 1
        if self._left_out >= LEFT_OUT:
            self._first = None
            self._left_out = 0

    def observe_refinement(
        self, seconds: float | None, prompt_tokens: int | None = None, *, first_token: float | None = None
    ) -> None:
        """An answer's first refinement came `seconds` after its request, whose prompt had `prompt_tokens`; None: it was
        asked for and did not come. `first_token`: so many seconds after the same request the first token had come;
        None: it had not."""
        self._refines = seconds is not None
        if seconds is not None:
            self._refined = _Wait(_duration("seconds", seconds), prompt_tokens)
            self._refined_after = None if first_token is None else _duration("after", seconds - first_token)

    def observe_kept(self, share: float) -> None:
        """A refinement kept this share of its prompt, which may be less than its keep ratio allows: what is beside the
        point is left out."""
        if not 0 < share <= 1:
            raise SettingError("share", share, "a share above 0 and at most 1")
        self._kept.append(share)

    def observe_round_trip(self, seconds: float) -> None:
        """A message was answered after `seconds`."""
        self._round_trips.append(_duration("seconds", seconds))

    @property
    def ttft(self) -> float | None:
        """Of the latest answer."""
        return None if self._first is None else self._first.seconds

    def ttft_of(self, prompt_tokens: int) -> float | None:
        """For a prompt of so many tokens: what the latest answer's took beyond a round trip was its prefill, and is
        less for a shorter prompt, in proportion. A longer one is expected to take no longer, which asks for more
        tokens than may be needed, and never leaves a fast cloud unasked."""
        return None if self._first is None else self._first.for_prompt(prompt_tokens, self.round_trip or 0.0)

    @property
    def tpot(self) -> float | None:
        """Over the latest arrivals together, so that a burst does not look like a fast cloud."""
        later = sum(count for _, count in self._arrivals) - (self._arrivals[0][1] if self._arrivals else 0)
        if later == 0:
            return self._tpot
        return (self._arrivals[-1][0] - self._arrivals[0][0]) / later

    def refinement_of(self, prompt_tokens: int, *, first_token: float | None = None) -> float | None:
        """Seconds from a request with a prompt of so many tokens to its refinement. Both it and the first token come
        from the same prefill, so it is expected as long after the first token as the latest one was, and with it until
        one was seen; one that came before its first token (the cloud read again what it kept) says how long after the
        request, in proportion as `ttft_of`. `first_token`: so many seconds after this request its first token came;
        None: not yet. None: nothing is known, or this cloud does not refine."""
        if self._refines is False:
            return None
        if self._refined is not None and self._refined_after is None:
            return self._refined.for_prompt(prompt_tokens, self.round_trip or 0.0)
        first = self.ttft_of(prompt_tokens) if first_token is None else first_token
        return None if first is None else first + (self._refined_after or 0.0)

    @property
    def refines(self) -> bool:
        """False once a refinement that was asked for did not come."""
        return self._refines is not False

    def kept_of(self, keep_ratio: float) -> float:
        """The share of a prompt that a refinement is expected to keep, where it may keep `keep_ratio` of it: all of
        that until one was seen."""
        return min(max(self._kept, default=keep_ratio), keep_ratio)

    @property
    def round_trip(self) -> float | None:
        """The median of the latest few."""
        return statistics.median(self._round_trips) if self._round_trips else None


def _duration(name: str, value: float) -> float:
    if not (math.isfinite(value) and value >= 0):
        raise SettingError(name, value, "a finite value of at least 0")
    return value


def _positive(name: str, value: float) -> float:
    if not (math.isfinite(value) and value > 0):
        raise SettingError(name, value, "a finite value above 0")
    return value
