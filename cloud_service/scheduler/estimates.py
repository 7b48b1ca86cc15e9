"""How long things will take, from how long they took. Pure: durations are passed in."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from cloud_service.scheduler.policy import Costs

# The share of the newest pass in an average: a change of load shows after some ten passes.
_NEWEST = 0.2
# Variance of the tokens in a pass below which it tells nothing about what one more costs.
_ALIKE = 0.01


@dataclass(frozen=True, slots=True)
class Demand:
    """What a generation still needs."""

    #: Prompt tokens to prefill.
    prefill: int
    #: Output tokens to decode.
    decode: int
    #: Tokens of KV, held or to be held.
    kv: int = 0
    #: When its first token is needed; who is seated and prefilled first.
    due: float = 0.0


@dataclass(frozen=True, slots=True)
class Room:
    """What the engine holds at a time."""

    places: int
    kv: int


@dataclass(slots=True)
class _Line:
    """seconds = base + slope · tokens through the newest passes: least squares, older passes fading."""

    tokens: float = 0.0
    seconds: float = 0.0
    _spread: float = 0.0
    _together: float = 0.0

    def observe(self, tokens: int, seconds: float) -> None:
        if self.seconds == 0.0:
            self.tokens, self.seconds = tokens, seconds
            return
        more_tokens, more_seconds = tokens - self.tokens, seconds - self.seconds
        self.tokens += _NEWEST * more_tokens
        self.seconds += _NEWEST * more_seconds
        self._spread = (1 - _NEWEST) * (self._spread + _NEWEST * more_tokens * more_tokens)
        self._together = (1 - _NEWEST) * (self._together + _NEWEST * more_tokens * more_seconds)

    @property
    def coefficients(self) -> tuple[float, float]:
        """Base and slope, neither below 0. Where passes were all alike, all of it is base."""
        if self._spread < _ALIKE:
            return self.seconds, 0.0
        slope = min(max(0.0, self._together / self._spread), self.seconds / self.tokens)
        return self.seconds - slope * self.tokens, slope


@dataclass(slots=True)
class Pace:
    """Moving averages over passes; 0 until something was measured."""

    #: Seconds per prompt token.
    prefill_s: float = 0.0
    _decode: _Line = field(default_factory=_Line)

    @property
    def costs(self) -> Costs:
        base_s, decode_s = self._decode.coefficients
        return Costs(base_s, decode_s, self.prefill_s)

    def observe(self, seconds: float, prefill_tokens: int, decode_tokens: int) -> None:
        """One pass took `seconds`. Of a mixed pass, prefill is what decoding alone would not have taken."""
        if prefill_tokens:
            extra = max(0.0, seconds - self.costs.seconds(0, decode_tokens))
            self.prefill_s = _average(self.prefill_s, extra / prefill_tokens)
        elif decode_tokens:
            self._decode.observe(decode_tokens, seconds)

    def until_first_token(self, own: Demand, others: Iterable[Demand]) -> float:
        """Seconds to a first token for a generation that is seated now; prompts that are due earlier go first."""
        return self.prefill_s * (own.prefill + sum(other.prefill for other in others if other.due <= own.due))

    def until_seated(self, own: Demand, room: Room, seated: Sequence[Demand], waiting: Iterable[Demand]) -> float:
        """Seconds until there is room for `own`, behind those of `waiting` that are due earlier, if every grant is
        used up; infinite where it could never be."""
        pass_s = self.costs.seconds(0, max(1, len(seated)))
        prefill_ahead = sum(demand.prefill for demand in seated) * self.prefill_s
        ends = [(prefill_ahead + demand.decode * pass_s, demand.kv) for demand in seated]
        heapq.heapify(ends)
        places, kv = room.places - len(seated), room.kv - sum(demand.kv for demand in seated)
        now = 0.0
        ahead = sorted((demand for demand in waiting if demand.due <= own.due), key=lambda demand: demand.due)
        for demand in [*ahead, own]:
            while places < 1 or kv < demand.kv:
                if not ends:
                    return math.inf
                end, freed = heapq.heappop(ends)
                now, places, kv = max(now, end), places + 1, kv + freed
            places, kv = places - 1, kv - demand.kv
            busy = demand.prefill * self.prefill_s + demand.decode * pass_s
            heapq.heappush(ends, (now + busy, demand.kv))
        return now


def _average(so_far: float, newest: float) -> float:
    return newest if so_far == 0.0 else so_far + _NEWEST * (newest - so_far)
