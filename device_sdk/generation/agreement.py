"""How far the device agrees with the tokens that it received, and whether that is enough to take over. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from device_sdk.generation.cloud_track import CloudTrack, GrantUsed, Open

#: Received tokens that count for the gate, the latest ones, and the fewest that say anything.
WINDOW, LEAST_CHECKED = 16, 4

#: Tokens that are asked for at a time while the device disagrees.
MORE = 8


class Agreement:
    """Of the received tokens that the device has checked, those that it would have said itself."""

    def __init__(self) -> None:
        self.checked = 0
        self.agreed = 0
        self._latest: deque[bool] = deque(maxlen=WINDOW)

    def note(self, agreed: Iterable[bool]) -> None:
        for one in agreed:
            self.checked += 1
            self.agreed += one
            self._latest.append(one)

    @property
    def share(self) -> float | None:
        """Of all; None where none was checked."""
        return self.agreed / self.checked if self.checked else None

    @property
    def latest(self) -> float | None:
        """Of the latest WINDOW; None where they are too few to say anything."""
        return sum(self._latest) / len(self._latest) if len(self._latest) >= LEAST_CHECKED else None


class HandOverGate:
    """Holds the hand-over back while the device disagrees with the cloud, so that the cloud goes on.

    `least`: the share of the latest received tokens that the device must agree with; None: it may always take over.
    `limit`: output tokens that the cloud may give at most; beyond, the device takes over all the same.
    """

    def __init__(self, least: float | None, limit: int, agreement: Agreement, cloud: CloudTrack) -> None:
        self._least = least
        self._limit = limit
        self._agreement = agreement
        self._cloud = cloud
        #: Whether the user knows that more was asked for.
        self.told = False
        self._own: tuple[int, int] | None = None

    def holds(self, output: int) -> bool:
        """Whether the device has to wait, with so many tokens of output: only for what the cloud can still give."""
        latest = self._agreement.latest
        if self._least is None or latest is None or latest >= self._least:
            return False
        match self._cloud.state:
            case Open() as attempt:
                return not attempt.stopping and (attempt.remaining > 0 or output < self._limit)
            case GrantUsed():
                return output < self._limit and not self._cloud.spent
            case _:
                return False

    def keep(self, index: int, token: int) -> None:
        """The device would say `token` as output token `index`, but has to wait for what the cloud says."""
        self._own = index, token

    @property
    def waits(self) -> bool:
        """Whether the device has read all there is and only waits."""
        return self._own is not None

    def compare(self, index: int, token: int) -> None:
        """The cloud said `token` as output token `index`."""
        if self._own is not None and self._own[0] == index:
            self._agreement.note([self._own[1] == token])
        self._own = None

    def release(self) -> int | None:
        """What the device was waiting to say; None: nothing, or nothing any more."""
        own, self._own = self._own, None
        return None if own is None else own[1]

    def reason(self) -> str:
        return f"the device agrees with {100 * (self._agreement.latest or 0.0):.0f}% of the cloud's latest tokens"

    def grant(self, base: int, output: int) -> int:
        """Of an attempt that began after `base` tokens of output: what it should be allowed, with `output` in hand."""
        return min(output + MORE, self._limit) - base
