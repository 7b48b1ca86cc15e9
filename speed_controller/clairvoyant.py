"""The best schedule in hindsight, all arrivals known: what the controller is measured against.

Of all schedules that show tokens in order, none before it arrived, the first one on arrival, and none faster than
`pace` (0: no such wish), the one here has the smallest largest gap *and* the earliest end, at once:

- Token i cannot be shown before it arrived, i gaps after the first one, so some gap is at least (aᵢ - a₀)/i. The
  least concave curve over the points (i, aᵢ) has no larger gap than the largest of these, and its gaps only shrink.
- It passes through the last arrival, so showing evenly delays the end by nothing.
- With `pace`, the later of that curve and the even line a₀ + i·pace has no gap above the larger of the two, and no
  schedule with such gaps ends sooner.

So no bound on the end has to be chosen: the trade between even and early does not exist once arrivals are known.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def clairvoyant(arrivals: Sequence[float], pace: float = 0.0) -> list[float]:
    """When to show each token. `arrivals` in seconds, non-decreasing; `pace` in seconds per token."""
    corners: list[int] = []  # of the least concave curve over the arrivals
    for i in range(len(arrivals)):
        while len(corners) >= 2 and _below(arrivals, corners[-2], corners[-1], i):
            corners.pop()
        corners.append(i)
    shown = list(arrivals[:1])
    for left, right in pairwise(corners):
        step = (arrivals[right] - arrivals[left]) / (right - left)
        shown += [max(arrivals[left] + (i - left) * step, arrivals[i]) for i in range(left + 1, right + 1)]
    return [max(at, shown[0] + i * pace) for i, at in enumerate(shown)]


def smallest_largest_gap(arrivals: Sequence[float], pace: float = 0.0) -> float:
    """The largest gap of that schedule, in seconds: max((aᵢ - a₀)/i, pace); 0 for fewer than two tokens."""
    if len(arrivals) < 2:
        return 0.0
    return max(pace, *((at - arrivals[0]) / i for i, at in enumerate(arrivals[1:], start=1)))


def _below(arrivals: Sequence[float], left: int, middle: int, right: int) -> bool:
    """Whether the middle point lies on or below the line from left to right."""
    rise = (arrivals[right] - arrivals[left]) * (middle - left)
    return (arrivals[middle] - arrivals[left]) * (right - left) <= rise
