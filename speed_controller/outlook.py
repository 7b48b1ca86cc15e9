"""What is still to come, and the pace that it allows. Pure functions of one frozen snapshot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Tokens beyond the next change of source that the pace looks ahead.
HORIZON = 32


@dataclass(frozen=True, slots=True)
class Outlook:
    """Where the answer stands and what is forecast. Absolute times in seconds; rates in seconds per token."""

    now: float
    #: Tokens that arrived and are not shown yet.
    in_hand: int
    last_shown: float
    last_arrival: float
    #: Tokens of the grant that the cloud still sends, and its time for each (None: the cloud gives nothing more).
    cloud_left: int
    cloud_tpot: float | None
    #: When the device produces its first own token (None: never), and its time for each.
    ready_at: float | None
    device_tpot: float | None


def milestones(outlook: Outlook) -> Iterator[tuple[int, float]]:
    """(tokens after the last shown one, when that one arrives) at both ends of each even stretch of arrivals.

    Within a stretch the pace needed is monotonic in the token's index, so its ends are all that matters.
    """
    index, latest = outlook.in_hand, outlook.last_arrival
    if outlook.cloud_left > 0 and outlook.cloud_tpot is not None:
        first = max(outlook.now, latest + outlook.cloud_tpot)
        count = _cloud_tokens_used(outlook, first)
        if count > 0:
            yield index + 1, first
            index += count
            latest = first + (count - 1) * outlook.cloud_tpot
            yield index, latest
    if outlook.ready_at is not None:
        tpot = outlook.device_tpot or 0.0
        own = latest + tpot if outlook.ready_at <= outlook.last_arrival else outlook.ready_at
        first = max(outlook.now, own)
        yield index + 1, first
        if tpot > 0.0:
            yield index + HORIZON, first + (HORIZON - 1) * tpot


def _cloud_tokens_used(outlook: Outlook, first: float) -> int:
    """How many of the tokens left the cloud sends before the device takes over."""
    if outlook.ready_at is None or not outlook.cloud_tpot:
        return outlook.cloud_left
    before = max(0, int((outlook.ready_at - first) / outlook.cloud_tpot) + 1)
    return min(outlook.cloud_left, before)


def pace_needed(outlook: Outlook) -> float:
    """The fastest even pace, from the last shown token on, that waits for no token; 0 where nothing is forecast."""
    return max(((time - outlook.last_shown) / ahead for ahead, time in milestones(outlook)), default=0.0)
