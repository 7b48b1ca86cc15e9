"""When each token is shown: events and `now` in, decisions out."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from speed_controller.errors import SettingError, TimeWentBackError
from speed_controller.outlook import Outlook, pace_needed

if TYPE_CHECKING:
    from speed_controller.settings import PaceSettings


class SpeedController:
    """Shows the tokens of one answer, in order, none before it arrived, the first one at once.

    Reads no clock: every call carries `now`, seconds of one monotonic clock, never older than the call before
    (TimeWentBackError). The driver reports what happens (`arrived`, `expect_device`, `cloud_state`, `finished`),
    sleeps until `next_due()`, and shows as many tokens as `due()` returns. Not thread-safe.
    """

    def __init__(self, settings: PaceSettings, *, submitted: float) -> None:
        self._settings = settings
        self._now = submitted
        self._arrived = 0
        self._shown = 0
        self._last_arrival = submitted
        self._last_shown = submitted
        self._available_since = submitted  # no token can be shown before it
        self._pace = settings.pace  # of the gap before the last shown token; free before there is one
        self._gap = settings.pace  # the gap before the next token, as decided now
        self._ready_at: float | None = None
        self._device_tpot: float | None = None
        self._cloud_left = 0
        self._cloud_tpot: float | None = None
        self._round_trip = 0.0
        self._finished = False

    # --- events --------------------------------------------------------------------------------------------------

    def arrived(self, now: float, count: int = 1) -> None:
        """`count` tokens were appended to the output, by the cloud or by the device."""
        if count < 1:
            raise SettingError("count", count, "at least 1 token")
        self._advance(now)
        if self.buffered == 0:
            self._available_since = now
        self._arrived += count
        self._last_arrival = now
        self._cloud_left = max(0, self._cloud_left - count)
        self._decide()

    def expect_device(self, now: float, ready_at: float | None, tpot: float | None) -> None:
        """Forecast: when the device produces its first own token (None: it never will), and its time per token
        (None: not known yet). After the hand-over, `ready_at` stays the time at which it took over."""
        self._advance(now)
        self._ready_at = ready_at
        self._device_tpot = tpot
        self._decide()

    def cloud_state(self, now: float, *, remaining: int, tpot: float | None, round_trip: float) -> None:
        """`remaining`: tokens of the grant that the cloud will still send, asked-for extensions included (0: the
        grant is used up). `tpot`: its time per token; None where no more can be asked for or counted on (lost,
        rejected, ended at the end of the answer). Arrivals count `remaining` down by themselves in between."""
        self._advance(now)
        self._cloud_left = max(0, remaining)
        self._cloud_tpot = tpot
        self._round_trip = round_trip
        self._decide()

    def finished(self, now: float) -> None:
        """No further token will arrive: the whole answer is in hand."""
        self._advance(now)
        self._finished = True
        self._decide()

    # --- decisions -----------------------------------------------------------------------------------------------

    def due(self, now: float) -> int:
        """How many tokens to show now; they count as shown from here on."""
        self._advance(now)
        count = 0
        while (at := self._due_at()) is not None and at <= now:
            count += 1
            self._show(at, now)
        return count

    def next_due(self) -> float | None:
        """The absolute time at which `due` will be above 0 if nothing else happens; None: not before an event.
        Never older than the latest event, and `due(next_due())` shows at least one token."""
        at = self._due_at()
        return None if at is None else max(at, self._now)

    def extension(self, now: float) -> int:
        """How many more tokens to ask the cloud for now; 0: none. After asking, report the raised `remaining`
        through `cloud_state`: until then the answer stays the same."""
        self._advance(now)
        if self._shown == 0 or self._finished or self._cloud_tpot is None or self._ready_at is None:
            return 0
        in_reach = self.buffered + self._cloud_left + 1
        lasts = in_reach * self._settings.pace_max
        wanted = self._ready_at - self._last_shown
        if wanted <= lasts:
            return 0
        lead = self._round_trip + self._cloud_tpot + self._settings.pace_max
        if self._last_shown + lasts - now > lead:
            return 0
        return math.ceil((wanted - lasts) / self._settings.pace_max)

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

    # --- inside --------------------------------------------------------------------------------------------------

    @property
    def _flushing(self) -> bool:
        return self._finished and self._settings.finish == "flush"

    def _advance(self, now: float) -> None:
        if not now >= self._now:  # also refuses NaN
            raise TimeWentBackError(now, self._now)
        self._now = now

    def _due_at(self) -> float | None:
        """When the next token should be shown; in the past where the driver woke late."""
        if self.buffered == 0:
            return None
        if self._shown == 0 or self._settings.mode == "off" or self._flushing:
            return self._available_since
        return max(self._last_shown + self._gap, self._available_since)

    def _show(self, at: float, now: float) -> None:
        first = self._shown == 0
        self._shown += 1
        if not first:
            self._pace = self._gap
        # A driver that woke late keeps the average pace, but a token more than half a gap late starts afresh:
        # otherwise the next ones would come in a burst.
        late = now - at
        self._last_shown = at if late <= self._gap / 2 and not first else now
        self._available_since = self._last_shown
        self._decide()

    def _decide(self) -> None:
        """Choose the gap before the next token."""
        wanted = self._wanted()
        if self._shown > 1:
            change = self._settings.max_change
            wanted = min(max(wanted, self._pace * (1 - change)), self._pace * (1 + change))
        self._gap = wanted

    def _wanted(self) -> float:
        settings = self._settings
        if settings.mode != "smooth":
            return settings.pace
        if self._finished:
            return min(self._gap, settings.pace)
        floor = settings.pace
        if self._ready_at is not None and self._device_tpot is not None:
            floor = min(settings.pace, max(settings.pace_min, self._device_tpot))
        needed = pace_needed(self._outlook())
        can_extend = self._cloud_tpot is not None
        return max(floor, min(needed, settings.pace_max) if can_extend else needed)

    def _outlook(self) -> Outlook:
        return Outlook(
            now=self._now,
            in_hand=self.buffered,
            last_shown=self._last_shown,
            last_arrival=self._last_arrival,
            cloud_left=self._cloud_left,
            cloud_tpot=self._cloud_tpot,
            ready_at=self._ready_at,
            device_tpot=self._device_tpot,
        )
