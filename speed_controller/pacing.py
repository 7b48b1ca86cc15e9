"""The gap before the next token: a pure function of the outlook and of the gap before."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from speed_controller.outlook import milestones

if TYPE_CHECKING:
    from collections.abc import Sequence

    from speed_controller.outlook import Milestone, Outlook
    from speed_controller.settings import PaceSettings

#: Spare time kept against jitter, in tokens' time of the source, and against an error of the forecast, as a share of
#: the wait for the device. docs/metrics.md says how these were found.
SPARE_TOKENS = 3.0
SPARE_SHARE = 0.15
#: Spare time is built up over this many tokens at least, so that a little jitter does not move the pace.
REFILL = 4
#: Up to the preferred pace spare time costs nothing. Beyond it, this much at most.
COST_OF_SPARE = 1.05


def next_gap(outlook: Outlook, settings: PaceSettings, previous: float | None) -> float:
    """Seconds from the last shown token to the next one; `previous`: the gap before it, None where there is none.

    It differs from `previous` by at most `settings.max_change`, but for a step that no one can be spared: where slowing
    down that gradually would still run dry before what is forecast, it steps to the even pace at once, since the long
    gap would come anyway; and from a pace slower than `pace_max` it steps back as soon as it can.
    """
    coming = tuple(milestones(outlook))
    wanted = _wanted(outlook, coming, settings, previous)
    if previous is None:
        return wanted
    change = settings.max_change
    slowest = previous * (1 + change) if _gradual_reaches(outlook, coming, settings, previous) else math.inf
    # Beyond `pace_max` the pace is no choice: from there it comes back at once.
    return min(max(wanted, min(previous * (1 - change), settings.pace_max)), slowest)


def _wanted(outlook: Outlook, coming: Sequence[Milestone], settings: PaceSettings, previous: float | None) -> float:
    needed = safe = 0.0
    if coming:
        needed = max([_just_reaches(outlook, token, settings) for token in coming])
        safe = max([_reaches_with_spare(outlook, token, settings) for token in coming])
    # Spare time alone takes the pace neither past `pace_max` nor, beyond that cost, past where it was.
    dear = COST_OF_SPARE * needed
    if needed <= settings.pace_max:
        dear = min(dear, settings.pace_max)
    affordable = max(settings.pace, dear, previous or 0.0)
    return max(_fastest(outlook, settings), needed, min(safe, affordable))


def _fastest(outlook: Outlook, settings: PaceSettings) -> float:
    """The preferred pace; once the device leads, its own where that is faster.

    Not before: until the hand-over, tokens in hand are all that a late device can be covered with.
    """
    if not outlook.device_leads or outlook.device_tpot is None:
        return settings.pace
    return min(settings.pace, max(settings.pace_min, outlook.device_tpot))


def _just_reaches(outlook: Outlook, token: Milestone, settings: PaceSettings) -> float:
    """The even pace that shows `token` the moment it arrives: e/b. What more grant would cover does not slow the pace
    beyond `pace_max`: there an extension is asked for."""
    even = (token.time - outlook.origin) / token.ahead
    return min(even, settings.pace_max) if token.extendable else even


def _reaches_with_spare(outlook: Outlook, token: Milestone, settings: PaceSettings) -> float:
    """The same where `token` comes later than forecast by the usual error."""
    spare = SPARE_TOKENS * token.tpot
    if not outlook.device_leads:
        spare += SPARE_SHARE * (token.time - outlook.now)
    missing = token.time + spare - outlook.origin - token.ahead * token.tpot
    pace = token.tpot + missing / max(token.ahead, REFILL)
    return min(pace, settings.pace_max) if token.extendable else pace


def _gradual_reaches(outlook: Outlook, coming: Sequence[Milestone], settings: PaceSettings, previous: float) -> bool:
    """Whether slowing down by `max_change` with every token keeps tokens in hand until each milestone."""
    growth = math.log1p(settings.max_change)
    for token in coming:
        wait = token.time - outlook.origin
        if token.extendable and wait > token.ahead * settings.pace_max:
            continue  # more grant covers it
        # Sum of a geometric series; the bound keeps the power finite.
        reach = previous * (1 + 1 / settings.max_change) * math.expm1(min(100.0, token.ahead * growth))
        if reach < wait:
            return False
    return True
