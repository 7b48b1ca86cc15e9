from __future__ import annotations

import itertools
import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speed_controller.clairvoyant import clairvoyant, smallest_largest_gap

instants = st.lists(st.integers(0, 8), min_size=2, max_size=5).map(sorted)
arrival_times = st.lists(st.floats(0, 100), min_size=1, max_size=40).map(sorted)
paces = st.floats(0, 2)
untimed = settings(deadline=None, max_examples=60)


def every_schedule(arrivals: list[int], end: int) -> list[tuple[int, ...]]:
    """All schedules in whole time units: the first token on arrival, none early, in order."""
    choices = [range(arrival, end + 1) for arrival in arrivals[1:]]
    return [
        (arrivals[0], *times)
        for times in itertools.product(*choices)
        if all(a <= b for a, b in pairwise((arrivals[0], *times)))
    ]


@untimed
@given(arrivals=instants)
def test_no_schedule_has_a_smaller_largest_gap(arrivals: list[int]) -> None:
    best = min(max(b - a for a, b in pairwise(times)) for times in every_schedule(arrivals, arrivals[-1] + 2))

    # In whole units the optimum is the true one rounded up: an even schedule of that gap exists.
    assert best == math.ceil(smallest_largest_gap(arrivals) - 1e-9)


@untimed
@given(arrivals=instants, pace=st.integers(0, 4))
def test_no_schedule_with_such_gaps_that_keeps_to_the_pace_ends_earlier(arrivals: list[int], pace: int) -> None:
    schedules = [
        times
        for times in every_schedule(arrivals, arrivals[-1] + 4 * pace)
        if all(b - a >= pace for a, b in pairwise(times))
    ]

    assert min(times[-1] for times in schedules) >= clairvoyant(arrivals, pace)[-1] - 1e-9


@untimed
@given(arrivals=arrival_times, pace=paces)
def test_the_schedule_is_possible_and_reaches_the_optimum(arrivals: list[float], pace: float) -> None:
    times = clairvoyant(arrivals, pace)

    assert times[0] == arrivals[0]
    assert all(at >= arrival for at, arrival in zip(times, arrivals, strict=True))
    assert times[-1] == pytest.approx(max(arrivals[-1], arrivals[0] + (len(arrivals) - 1) * pace))
    largest = max((b - a for a, b in pairwise(times)), default=0.0)
    assert largest <= smallest_largest_gap(arrivals, pace) + 1e-9


def test_a_stall_is_spread_over_the_tokens_before_it() -> None:
    # Three tokens at once, then one after 3 s: an even second each.
    assert clairvoyant([0.0, 0.0, 0.0, 3.0]) == pytest.approx([0.0, 1.0, 2.0, 3.0])


def test_nothing_arrived() -> None:
    assert clairvoyant([]) == []
    assert smallest_largest_gap([]) == 0.0
    assert smallest_largest_gap([5.0], pace=0.1) == 0.0
