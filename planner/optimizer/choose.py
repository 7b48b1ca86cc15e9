"""One option for each bucket, so that all keep within the cloud's capacity: a multiple-choice knapsack.

Without binding capacity each bucket takes its cheapest. Else branch and bound: prices for what is scarce (Lagrange
multipliers, by subgradient steps) give a bound for what is left to choose; the search ends when the best choice found
is within TOLERANCE of the bound.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Sequence

TOLERANCE = 0.002
_STEPS = 80
#: Combinations below which prices cost more than they save.
_FEW = 2_000
_NODES = 20_000

#: (value, resources used), both for the whole bucket.
Item = tuple[float, tuple[float, ...]]


def choose(items: Sequence[Sequence[Item]], capacity: Sequence[float]) -> list[int] | None:
    """The index of each bucket's item with the least sum of values; None where none keeps within `capacity`."""
    cheapest = [min(range(len(bucket)), key=lambda at: bucket[at][0]) for bucket in items]
    if _fits(items, cheapest, capacity):
        return cheapest
    few = math.prod(map(len, items)) <= _FEW
    prices = [0.0] * len(capacity) if few else _prices(items, capacity)
    order = sorted(range(len(items)), key=lambda b: -max(sum(uses) for _, uses in items[b]))
    reduced = [[value + _paid(uses, prices) for value, uses in bucket] for bucket in items]
    bound_left = [0.0] * (len(order) + 1)
    least_left = [[0.0] * len(capacity) for _ in range(len(order) + 1)]
    for depth in range(len(order) - 1, -1, -1):
        bucket = order[depth]
        bound_left[depth] = bound_left[depth + 1] + min(reduced[bucket])
        least_left[depth] = [
            least_left[depth + 1][r] + min(uses[r] for _, uses in items[bucket]) for r in range(len(capacity))
        ]
    constant = -_paid(capacity, prices)
    best = _greedy(items, reduced, capacity, order, least_left)
    best_value = sum(bucket[at][0] for bucket, at in zip(items, best, strict=True)) if best else 1e300
    counter = itertools.count()
    heap: list[tuple[float, int, int, float, tuple[float, ...], tuple[int, ...]]] = [
        (bound_left[0] + constant, 0, 0, 0.0, (0.0,) * len(capacity), ())
    ]
    for _ in range(_NODES):
        if not heap:
            break
        bound, _, depth, value, used, chosen = heapq.heappop(heap)
        if depth == len(order):
            return _unsorted(order, chosen)  # its bound is its value, and no other bound is lower
        bucket = order[depth]
        for at, (more, uses) in enumerate(items[bucket]):
            total = tuple(a + b for a, b in zip(used, uses, strict=True))
            if any(
                t + left > cap * (1 + 1e-9) for t, left, cap in zip(total, least_left[depth + 1], capacity, strict=True)
            ):
                continue
            ahead = value + more + _paid(total, prices) + bound_left[depth + 1] + constant
            # Capacity that a whole choice leaves unused has no price.
            bound_here = max(bound, ahead) if depth + 1 < len(order) else value + more
            if bound_here < best_value - TOLERANCE * abs(best_value):
                heapq.heappush(heap, (bound_here, next(counter), depth + 1, value + more, total, (*chosen, at)))
    return best


def _prices(items: Sequence[Sequence[Item]], capacity: Sequence[float]) -> list[float]:
    """Multipliers of the best Lagrangian bound that subgradient steps find."""
    scale = max(1e-12, *(abs(value) for bucket in items for value, _ in bucket))
    prices = [0.0] * len(capacity)
    best, best_bound = prices, -float("inf")
    for step in range(1, _STEPS + 1):
        picks = [min(bucket, key=lambda item: item[0] + _paid(item[1], prices)) for bucket in items]
        bound = sum(value + _paid(uses, prices) for value, uses in picks) - _paid(capacity, prices)
        if bound > best_bound:
            best, best_bound = prices, bound
        over = [
            sum(uses[r] for _, uses in picks) / cap - 1 if cap else 0.0 for r, cap in enumerate(capacity)
        ]  # relative, so that seconds and places move alike
        prices = [
            max(0.0, price + 4 * scale / max(cap, 1e-12) * more / step)
            for price, more, cap in zip(prices, over, capacity, strict=True)
        ]
    return best


def _greedy(
    items: Sequence[Sequence[Item]],
    reduced: Sequence[Sequence[float]],
    capacity: Sequence[float],
    order: Sequence[int],
    least_left: list[list[float]],
) -> list[int] | None:
    """A choice that fits: bucket by bucket the cheapest at those prices that leaves room for the rest."""
    used, chosen = [0.0] * len(capacity), []
    for depth, bucket in enumerate(order):
        room = [cap - u - left for cap, u, left in zip(capacity, used, least_left[depth + 1], strict=True)]
        fitting = [
            at
            for at, (_, uses) in enumerate(items[bucket])
            if all(need <= have * (1 + 1e-9) + 1e-12 for need, have in zip(uses, room, strict=True))
        ]
        if not fitting:
            return None
        at = min(fitting, key=lambda at: reduced[bucket][at])
        chosen.append(at)
        used = [u + more for u, more in zip(used, items[bucket][at][1], strict=True)]
    return _unsorted(order, tuple(chosen))


def _fits(items: Sequence[Sequence[Item]], picks: Sequence[int], capacity: Sequence[float]) -> bool:
    return all(
        sum(bucket[at][1][r] for bucket, at in zip(items, picks, strict=True)) <= cap * (1 + 1e-9)
        for r, cap in enumerate(capacity)
    )


def _paid(uses: Sequence[float], prices: Sequence[float]) -> float:
    return sum(use * price for use, price in zip(uses, prices, strict=True))


def _unsorted(order: Sequence[int], chosen: tuple[int, ...]) -> list[int]:
    picks = [0] * len(order)
    for bucket, at in zip(order, chosen, strict=True):
        picks[bucket] = at
    return picks
