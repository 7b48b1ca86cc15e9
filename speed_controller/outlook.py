"""What is still to come: one frozen snapshot, and the tokens of it that decide the pace."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Device tokens after the hand-over that are looked ahead to: the length of the answer is not known, and a device that
#: is slow for a while only should cost spare time, not pace.
HORIZON = 24


class Outlook(NamedTuple):
    """Where the answer stands and what is forecast. Absolute times in seconds; rates in seconds per token."""

    now: float
    #: When the last token was shown; one gap ago where the answer is waiting, for what is lost is lost.
    origin: float
    #: Tokens that arrived and are not shown yet.
    in_hand: int
    last_arrival: float
    #: Tokens of the grant that the cloud still sends, when the next of them is expected, and the time for each.
    #: A `cloud_tpot` of None with none left: the cloud gives nothing more, whoever asks.
    cloud_left: int
    cloud_next: float
    cloud_tpot: float | None
    #: When the device produces its first own token (None: never), whether it did, and its time for each.
    ready_at: float | None
    device_leads: bool
    device_tpot: float | None


class Milestone(NamedTuple):
    """One token still to come, at `time`, `ahead` tokens after the last shown one."""

    ahead: int
    time: float
    #: Of its source, seconds per token.
    tpot: float
    #: Whether more grant would cover the wait for it.
    extendable: bool = False


def milestones(outlook: Outlook) -> Iterator[Milestone]:
    """The first and the last token of each even stretch of arrivals.

    Within a stretch the pace that waits for no token is monotonic in the token's index: its ends are all that matters.
    """
    ahead, latest = outlook.in_hand, outlook.last_arrival
    if outlook.cloud_left > 0 and not outlook.device_leads:
        tpot = outlook.cloud_tpot or 0.0
        first = _expected(outlook.cloud_next, outlook.now)
        count = _before_device(outlook, first)
        if count > 0:
            latest = first + (count - 1) * tpot
            yield Milestone(ahead + 1, first, tpot)
            yield Milestone(ahead + count, latest, tpot)
            ahead += count
    if outlook.ready_at is not None:
        tpot = outlook.device_tpot or 0.0
        extendable = outlook.cloud_tpot is not None or outlook.cloud_left > 0
        own = latest + tpot if outlook.device_leads else max(outlook.ready_at, latest)
        first = _expected(own, outlook.now)
        yield Milestone(ahead + 1, first, tpot, extendable)
        yield Milestone(ahead + HORIZON, first + (HORIZON - 1) * tpot, tpot, extendable)


def _expected(forecast: float, now: float) -> float:
    """What is late by x is expected after x more: of a stall nothing is known but how long it lasts already."""
    return forecast if forecast >= now else now + (now - forecast)


def _before_device(outlook: Outlook, first: float) -> int:
    """How many of the tokens left the cloud sends before the device takes over."""
    if outlook.ready_at is None or not outlook.cloud_tpot:
        return outlook.cloud_left
    before = int((outlook.ready_at - first) / outlook.cloud_tpot) + 1
    return min(outlook.cloud_left, max(0, before))
