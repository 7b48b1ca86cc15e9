"""How long things will take, from how long they took. Pure: durations are passed in."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

# The share of the newest pass in an average: a change of load shows after some ten passes.
_NEWEST = 0.2


@dataclass(frozen=True, slots=True)
class Demand:
    """What a generation still needs: prompt tokens to prefill, output tokens to decode."""

    prefill: int
    decode: int


@dataclass(slots=True)
class Pace:
    """Moving averages over passes; 0 until something was measured."""

    #: Seconds per prompt token.
    prefill_s: float = 0.0
    #: Seconds per pass that decodes (one token for each generation in it).
    decode_s: float = 0.0

    def observe(self, seconds: float, prefill_tokens: int, decode_tokens: int) -> None:
        """One pass took `seconds`. Of a mixed pass, prefill is what decoding alone would not have taken."""
        if prefill_tokens:
            extra = max(0.0, seconds - (self.decode_s if decode_tokens else 0.0))
            self.prefill_s = _average(self.prefill_s, extra / prefill_tokens)
        elif decode_tokens:
            self.decode_s = _average(self.decode_s, seconds)

    def until_first_token(self, own_prefill: int, others: Iterable[Demand]) -> float:
        """Seconds to a first token for a generation that is seated now. Under round-robin every other prompt gets
        as much as this one, until either is done."""
        return self.prefill_s * (own_prefill + sum(min(own_prefill, other.prefill) for other in others))

    def until_free_place(self, places: int, seated: Sequence[Demand], waiting: Sequence[Demand]) -> float:
        """Seconds until a newcomer behind `waiting` gets one of the `places`, if every grant is used up."""
        if len(seated) + len(waiting) < places:
            return 0.0
        prefill_ahead = sum(demand.prefill for demand in seated) * self.prefill_s
        ends = [prefill_ahead + demand.decode * self.decode_s for demand in seated]
        ends += [0.0] * (places - len(ends))
        heapq.heapify(ends)
        for demand in waiting:
            start = heapq.heappop(ends)
            heapq.heappush(ends, start + demand.prefill * self.prefill_s + demand.decode * self.decode_s)
        return ends[0]


def _average(so_far: float, newest: float) -> float:
    return newest if so_far == 0.0 else so_far + _NEWEST * (newest - so_far)
