"""When each token is shown: events and `now` in, decisions out."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from speed_controller.errors import SettingError, TimeWentBackError
from speed_controller.outlook import Outlook
from speed_controller.pacing import next_gap

if TYPE_CHECKING:
    from speed_controller.settings import PaceSettings


class SpeedController:
    """Shows the tokens of one answer, in order, none before it arrived, the first one at once.

    Reads no clock: every call carries `now`, seconds of one monotonic clock, never older than the call before
    (TimeWentBackError). The driver reports what happens (`arrived`, `expect_device`, `cloud_state`, `finished`),
    sleeps until `next_due()`, and shows as many tokens as `due()` returns. The gap before a token is decided anew with
    every event, not by time passing alone: report forecasts again with each token shown. Not thread-safe.
    """

    def __init__(self, settings: PaceSettings, *, submitted: float) -> None:
        if not math.isfinite(submitted):
            raise SettingError("submitted", submitted, "a finite time in seconds")
        self._settings = settings
        self._now = submitted
        self._arrived = 0
        self._shown = 0
        self._finished = False
        self._last_arrival = submitted
        self._head_arrival = submitted  # no token in hand can be shown before it
        self._last_shown = submitted
        self._previous: float | None = None  # the gap before the last shown token
        self._gap = settings.pace  # the gap after it, as decided now
        self._due: float | None = None  # hence when the next token in hand is due
        self._ready_at: float | None = None
        self._device_leads = False
        self._device_tpot: float | None = None
        self._cloud_left = 0
        self._cloud_next = submitted
        self._cloud_tpot: float | None = None
        self._round_trip = 0.0
        self._decided_at = -math.inf

    # --- events ------------------------------------------------------------------------------------------------------

    def arrived(self, now: float, count: int = 1) -> None:
        """`count` tokens were appended to the output, by the cloud or by the device."""
        if count < 1:
            raise SettingError("count", count, "at least 1 token")
        self._advance(now)
        if self.buffered == 0:
            self._head_arrival = now
        self._arrived += count
        self._last_arrival = now
        self._cloud_left = max(0, self._cloud_left - count)
        self._cloud_next = now + (self._cloud_tpot or 0.0)
        self._decide()

    def expect_device(self, now: float, ready_at: float | None, tpot: float | None) -> None:
        """Forecast: when the device produces its first own token, and its time per token (None: not known yet).

        `ready_at` None: it never will. Once it did: the time of that token, or any later one up to `now`.
        """
        self._advance(now)
        past = ready_at is not None and ready_at <= now
        if ready_at is not None and past and self._ready_at is not None and self._ready_at <= now:
            # Still not there, and expected "now" again: the first forecast says by how much it is late.
            ready_at = min(ready_at, self._ready_at)
        came = ready_at is not None and self._arrived > 0 and ready_at <= self._last_arrival
        leads = came or (self._device_leads and past)
        known = self._ready_at == ready_at and self._device_tpot == tpot and self._device_leads is leads
        self._ready_at, self._device_tpot, self._device_leads = ready_at, tpot, leads
        self._decide(known)

    def cloud_state(self, now: float, *, remaining: int, tpot: float | None, round_trip: float) -> None:
        """`remaining`: tokens of the grant that the cloud will still send, extensions included as soon as they are
        asked for (0: the grant is used up); in between, arrivals count it down. `tpot`: its time per token, None where
        not known. With 0 remaining, None says that the cloud gives nothing more: lost, rejected, stopped, at the
        answer's end."""
        if remaining < 0:
            raise SettingError("remaining", remaining, "at least 0 tokens")
        self._advance(now)
        if self._cloud_left == 0 and remaining > 0 and self._arrived > 0:
            self._cloud_next = now + round_trip + (tpot or 0.0)
        known = self._cloud_left == remaining and self._cloud_tpot == tpot
        self._cloud_left, self._cloud_tpot, self._round_trip = remaining, tpot, round_trip
        self._decide(known)

    def finished(self, now: float) -> None:
        """No further token will arrive: the whole answer is in hand."""
        self._advance(now)
        self._finished = True
        self._decide()

    # --- decisions ---------------------------------------------------------------------------------------------------

    def due(self, now: float) -> int:
        """How many tokens to show now; they count as shown from here on."""
        self._advance(now)
        count = 0
        while self._due is not None and self._due <= now:
            count += 1
            self._show(self._due)
        return count

    def next_due(self) -> float | None:
        """When `due` will be above 0 if nothing else happens; None: not before an event. Absolute, never older than
        the latest event, and exact: `due(next_due())` shows a token."""
        return None if self._due is None else max(self._due, self._now)

    def extension(self, now: float) -> int:
        """How many more tokens to ask the cloud for now; 0: none, or not yet.

        Above 0 where even `pace_max` does not reach the device's forecast, a round trip and a token of the cloud
        (both twice: links jitter) before the tokens in hand would run out, or the grant ends. Asked again it says the
        same, until `cloud_state` reports the raised `remaining`. 0 where no device is expected: nothing says how many
        it takes.
        """
        self._advance(now)
        no_device = self._ready_at is None or self._device_leads
        if self._shown == 0 or self._finished or self._cloud_tpot is None or self._ready_at is None or no_device:
            return 0
        slowest = self._settings.pace_max
        dry_at = self._last_shown + (self.buffered + self._cloud_left + 1) * slowest
        in_time = dry_at - 2 * (self._round_trip + self._cloud_tpot + slowest)
        # What the cloud has ended must be begun anew, prompt and all: the end of the grant is the last cheap moment.
        ending = self._cloud_left * self._cloud_tpot <= 2 * (self._round_trip + self._cloud_tpot)
        if self._ready_at <= dry_at or (now < in_time and not ending):
            return 0
        return math.ceil((self._ready_at - dry_at) / slowest)

    @property
    def shown(self) -> int:
        """Tokens shown so far."""
        return self._shown

    @property
    def buffered(self) -> int:
        """Tokens that arrived and are not shown yet."""
        return self._arrived - self._shown

    @property
    def pace(self) -> float:
        """The current pace, seconds per token."""
        return self._gap

    # --- inside ------------------------------------------------------------------------------------------------------

    def _advance(self, now: float) -> None:
        if not self._now <= now < math.inf:  # refuses NaN, too
            raise TimeWentBackError(now, self._now)
        self._now = now

    def _show(self, due: float) -> None:
        """The token that was due at `due` is shown now."""
        if self._shown > 0:
            gap = due - self._last_shown
            # A wait for a token that came late is no pace: after a stall the pace goes on from where it was.
            waited = due <= self._head_arrival
            steady = max(self._gap, (self._previous or self._gap) * (1 + self._settings.max_change))
            self._previous = min(gap, steady) if waited else gap
        # A driver that woke late keeps the average pace, but from half a gap on it starts afresh: the next tokens would
        # come in a burst otherwise.
        self._last_shown = due if self._now - due <= self._gap / 2 else self._now
        self._shown += 1
        self._gap, self._due = self._next_gap(), None
        self._decided_at = -math.inf
        if self.buffered > 0:
            self._due = max(self._last_shown + self._gap, self._last_shown if self._at_once else self._head_arrival)

    def _decide(self, known: bool = False) -> None:
        """After an event: choose anew when the next token is due. `known`: the event says nothing new."""
        if self._due is not None and self._due <= self._now:
            return  # it is, and the driver is about to show it
        if known and self._decided_at == self._now:
            return
        self._decided_at = self._now
        self._gap = self._next_gap()
        if self.buffered > 0:
            planned = self._now if self._at_once else self._last_shown + self._gap
            self._due = max(planned, self._now)

    @property
    def _at_once(self) -> bool:
        settings = self._settings
        return self._shown == 0 or settings.mode == "off" or (self._finished and settings.finish == "flush")

    def _next_gap(self) -> float:
        settings, previous = self._settings, self._previous
        if settings.mode == "off":
            return 0.0
        if settings.mode == "fixed" or self._shown == 0:
            return settings.pace
        if not self._finished:
            return next_gap(self._outlook(), settings, previous)
        if settings.finish == "flush":
            return 0.0
        if previous is None:
            return settings.pace
        quickest = min(previous * (1 - settings.max_change), settings.pace_max)
        return max(min(previous, settings.pace), quickest)

    def _outlook(self) -> Outlook:
        usual = self._previous or self._settings.pace
        return Outlook(
            now=self._now,
            origin=max(self._last_shown, self._now - usual),
            in_hand=self.buffered,
            last_arrival=self._last_arrival,
            cloud_left=self._cloud_left,
            cloud_next=self._cloud_next,
            cloud_tpot=self._cloud_tpot,
            ready_at=self._ready_at,
            device_leads=self._device_leads,
            device_tpot=self._device_tpot,
        )
