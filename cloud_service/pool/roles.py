"""How many instances prefill and how many decode. Pure: measurements and times are passed in.

P/D-Serve (arXiv 2408.08147 §3): the two phases are balanced where n_p·b_p/T_p ≈ n_d·b_d/T_d; what the group can do a
second is the smaller of the two.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

#: `mixed` does both; `prefill` gives an answer's first token and hands over; `decode` takes over.
Role: TypeAlias = Literal["mixed", "prefill", "decode"]
ROLES: tuple[Role, ...] = ("mixed", "prefill", "decode")


@dataclass(frozen=True, slots=True)
class Phase:
    """What one instance does of it: `batch` generations at a time, each for `seconds`."""

    batch: float
    seconds: float

    @property
    def rate(self) -> float:
        """Generations a second."""
        return self.batch / self.seconds


@dataclass(frozen=True, slots=True)
class Split:
    """Instances of each role; at least one of either."""

    prefill: int
    decode: int

    def capacity(self, prefill: Phase, decode: Phase) -> float:
        """Generations a second that get through both."""
        return min(self.prefill * prefill.rate, self.decode * decode.rate)


@dataclass(frozen=True, slots=True)
class Change:
    """One instance goes over to the other role."""

    before: Literal["prefill", "decode"]
    after: Literal["prefill", "decode"]


def best_split(instances: int, prefill: Phase, decode: Phase) -> Split:
    """Of at least two instances, that with the highest capacity; of equals the one with more that prefill."""
    splits = [Split(count, instances - count) for count in range(instances - 1, 0, -1)]
    return max(splits, key=lambda split: split.capacity(prefill, decode))


@dataclass(slots=True)
class Rebalancer:
    """Hysteresis: it takes a gain of `margin` that lasts for `hold` seconds to move one instance, and then as long
    again to move the next one."""

    margin: float = 0.25
    hold: float = 10.0
    #: Since when the same change would have been a gain.
    _since: float | None = None
    _wanted: Change | None = None

    def look(self, split: Split, prefill: Phase, decode: Phase, now: float) -> Change | None:
        """What should change now; None for nothing. Call it again and again, with what was measured since."""
        best = best_split(split.prefill + split.decode, prefill, decode)
        gain = best.capacity(prefill, decode) / split.capacity(prefill, decode) - 1
        if best.prefill == split.prefill or gain < self.margin:
            self.forget()
            return None
        change = Change("decode", "prefill") if best.prefill > split.prefill else Change("prefill", "decode")
        if change != self._wanted or self._since is None:
            self._wanted, self._since = change, now
        if now - self._since < self.hold:
            return None
        self.forget()
        return change

    def forget(self) -> None:
        """What was seen so far is of no meaning any more."""
        self._since = self._wanted = None


def assign(instances: int, counts: Mapping[Role, int]) -> list[Role]:
    """The role of each instance; those that `counts` does not name are mixed. Raises ValueError for counts that
    cannot be, or with which an answer could not be begun or not be finished."""
    if min(counts.values(), default=0) < 0:
        raise ValueError("a role has at least 0 instances")
    named = sum(counts.values())
    if named > instances:
        raise ValueError(f"{named} instances have a role, and there are {instances}")
    roles: list[Role] = [role for role in ROLES for _ in range(counts.get(role, 0))]
    mixed: list[Role] = ["mixed"] * (instances - named)
    roles = mixed + roles
    if not can_serve(roles):
        raise ValueError("prefill and decode go together: one without the other needs an instance that is mixed")
    return roles


def can_serve(roles: Sequence[Role]) -> bool:
    return "mixed" in roles or ("prefill" in roles and "decode" in roles)
