"""From measured times to the figures of a profile. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

#: What a normal's median absolute deviation is to its standard deviation.
_MAD = 1.4826


def overhead_ms(times: Mapping[int, float], tokens: int) -> float:
    """What each pass adds: the slope of `times` (chunk → ms for `tokens` in such chunks) over the number of passes.
    0 where more passes do not take longer."""
    passes = [-(-tokens // chunk) for chunk in times]
    if len(set(passes)) < 2:
        return 0.0
    slope, _ = statistics.linear_regression(passes, list(times.values()))
    return max(0.0, slope)


def batch_share(times: Mapping[int, float]) -> float | None:
    """What one more sequence adds to a decode pass, as a share of one alone (`times`: sequences → ms). None where only
    one was measured."""
    alone = times.get(1)
    more = [(time / alone - 1) / (count - 1) for count, time in times.items() if alone and count > 1]
    return min(1.0, max(0.0, statistics.median(more))) if more else None


def relative_deviation(times: Sequence[float]) -> float:
    """Standard deviation ÷ median, by the median absolute deviation: one pause of the machine is no spread."""
    if len(times) < 3:
        return 0.0
    middle = statistics.median(times)
    return min(0.99, _MAD * statistics.median(abs(time - middle) for time in times) / middle) if middle else 0.0


def rising(points: Sequence[tuple[int, float]]) -> tuple[list[tuple[int, float]], list[int]]:
    """(tokens, ms) with the points left out that take no longer than a shorter one; and which were left out."""
    kept: list[tuple[int, float]] = []
    dropped: list[int] = []
    for tokens, time in points:
        if kept and time <= kept[-1][1]:
            dropped.append(tokens)
        else:
            kept.append((tokens, time))
    return kept, dropped
