"""Moving estimates of what the device and the cloud will do, from what they did. No clock: durations come in."""

from __future__ import annotations

import statistics
from collections import deque

from speed_controller.errors import SettingError

#: Medians over this many passes: one outlier does not move them, and a rate that halves for good shows after three.
WINDOW = 5


class DeviceForecast:
    """The device's prefill rate and time per output token, as medians of its latest passes.

    `prefill_rate` (tokens per second) and `tpot` (seconds) are what is believed before anything was observed, from a
    profile or an earlier answer. The first pass of an engine is a warm-up: it counts only until there is a second.
    """

    def __init__(self, *, prefill_rate: float | None = None, tpot: float | None = None) -> None:
        self._per_token = None if prefill_rate is None else 1.0 / prefill_rate
        self._tpot = tpot
        self._prefills: deque[float] = deque(maxlen=WINDOW)
        self._decodes: deque[float] = deque(maxlen=WINDOW)
        self._warm = False

    def observe_prefill(self, tokens: int, seconds: float) -> None:
        """A prefill pass over `tokens` tokens took `seconds`."""
        if tokens < 1:
            raise SettingError("tokens", tokens, "at least 1")
        if not self._warm and self._prefills:
            self._prefills.clear()
            self._warm = True
        self._prefills.append(seconds / tokens)

    def observe_decode(self, seconds: float) -> None:
        """One decode step took `seconds`."""
        self._decodes.append(seconds)

    def ready_in(self, tokens_left: int) -> float | None:
        """Seconds until `tokens_left` more tokens are prefilled and the first own token is there; None: not known."""
        per_token = statistics.median(self._prefills) if self._prefills else self._per_token
        return None if per_token is None else tokens_left * per_token

    @property
    def tpot(self) -> float | None:
        """Seconds per output token; None: not known."""
        return statistics.median(self._decodes) if self._decodes else self._tpot


class CloudForecast:
    """The cloud as seen from the device: time to first token, time per token, round trip. Seconds; None: not known."""

    def __init__(
        self, *, ttft: float | None = None, tpot: float | None = None, round_trip: float | None = None
    ) -> None:
        self._ttft = ttft
        self._tpot = tpot
        self._round_trips: deque[float] = deque([] if round_trip is None else [round_trip], maxlen=WINDOW)
        self._arrivals: deque[tuple[float, int]] = deque(maxlen=16)

    def observe_first_token(self, seconds: float) -> None:
        """The first token came `seconds` after the request."""
        self._ttft = seconds
        self._arrivals.clear()

    def observe_arrival(self, now: float, count: int = 1) -> None:
        """`count` tokens arrived together at `now`."""
        self._arrivals.append((now, count))

    def observe_round_trip(self, seconds: float) -> None:
        """A message was answered after `seconds`."""
        self._round_trips.append(seconds)

    @property
    def ttft(self) -> float | None:
        return self._ttft

    @property
    def tpot(self) -> float | None:
        """Over the latest arrivals together, so that a burst does not look like a fast cloud."""
        later = sum(count for _, count in list(self._arrivals)[1:])
        if later == 0:
            return self._tpot
        return (self._arrivals[-1][0] - self._arrivals[0][0]) / later

    @property
    def round_trip(self) -> float | None:
        return statistics.median(self._round_trips) if self._round_trips else None
