"""What holds for every pattern of arrivals, whatever the forecasts say."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speed_controller import SpeedController

if TYPE_CHECKING:
    from collections.abc import Callable

PACE_MAX = 0.08
untimed = settings(deadline=None, max_examples=60)
seconds = st.floats(0, 4)
rates = st.one_of(st.none(), st.floats(0.001, 0.3))


def arrived(controller: SpeedController, now: float, count: int) -> None:
    controller.arrived(now, count)


def expect_device(controller: SpeedController, now: float, ahead: float | None, tpot: float | None) -> None:
    controller.expect_device(now, None if ahead is None else now + ahead, tpot)


def cloud_state(controller: SpeedController, now: float, left: int, tpot: float | None, trip: float) -> None:
    controller.cloud_state(now, remaining=left, tpot=tpot, round_trip=trip)


tokens = st.tuples(seconds, st.builds(partial, st.just(arrived), count=st.integers(1, 3)))
device_forecasts = st.tuples(
    seconds,
    st.builds(partial, st.just(expect_device), ahead=st.one_of(st.none(), st.floats(-1, 4)), tpot=rates),
)
cloud_forecasts = st.tuples(
    seconds,
    st.builds(partial, st.just(cloud_state), left=st.integers(0, 50), tpot=rates, trip=st.floats(0, 0.3)),
)
histories = st.builds(
    lambda *parts: [event for part in parts for event in part],
    st.lists(tokens, min_size=1, max_size=30),
    st.lists(device_forecasts, max_size=8),
    st.lists(cloud_forecasts, max_size=8),
    st.sampled_from([[], [(4.0, SpeedController.finished)]]),
)
paces = st.fixed_dictionaries(
    {
        "mode": st.sampled_from(["smooth", "fixed", "off"]),
        "finish": st.sampled_from(["pace", "flush"]),
        "max_change": st.floats(0.01, 1.0),
    }
)


@untimed
@given(pace=paces, history=histories)
def test_every_token_is_shown_in_order_none_early_and_the_first_at_once(
    driver: Callable[..., Any], pace: dict[str, Any], history: list[Any]
) -> None:
    shown = driver(**pace).play(history)

    assert len(shown.times) == len(shown.arrivals)
    assert all(at >= arrival for at, arrival in zip(shown.times, shown.arrivals, strict=True))
    assert all(a <= b for a, b in pairwise(shown.times))
    assert shown.times[0] == shown.arrivals[0]


@untimed
@given(history=histories)
def test_off_shows_each_token_when_it_arrives(driver: Callable[..., Any], history: list[Any]) -> None:
    shown = driver(mode="off").play(history)

    assert shown.times == shown.arrivals


@untimed
@given(history=histories)
def test_fixed_is_the_pace_or_the_arrival_whichever_is_later(driver: Callable[..., Any], history: list[Any]) -> None:
    shown = driver(mode="fixed", pace=0.05).play(history)

    expected = shown.arrivals[:1]
    for arrival in shown.arrivals[1:]:
        expected.append(max(expected[-1] + 0.05, arrival))
    assert shown.times == pytest.approx(expected)


@untimed
@given(history=histories, change=st.floats(0.01, 1.0))
def test_the_pace_never_quickens_by_more_than_the_largest_change(
    driver: Callable[..., Any], history: list[Any], change: float
) -> None:
    shown = driver(max_change=change, pace_max=PACE_MAX).play(history)

    for (before, after), (late_before, late_after) in zip(pairwise(shown.gaps), pairwise(shown.waited), strict=True):
        # After a stall, the pace goes on from where it was, not from the stall. Beyond the slowest pace of choice, it
        # may come back at once.
        if not late_before and not late_after:
            assert after >= min(before * (1 - change), PACE_MAX) - 1e-9


@untimed
@given(history=histories, late=st.lists(st.floats(0, 0.2), min_size=1, max_size=10))
def test_a_driver_that_wakes_late_neither_loops_nor_waits_backwards(
    driver: Callable[..., Any], history: list[Any], late: list[float]
) -> None:
    made = driver()
    now = made.play(history).times[-1] + 5.0
    controller: SpeedController = made.controller
    controller.arrived(now, 20)

    wakes = 0
    while (due := controller.next_due()) is not None:
        assert due >= now
        now = due + late[wakes % len(late)]
        assert controller.due(now) >= 1
        wakes += 1
    assert controller.buffered == 0
