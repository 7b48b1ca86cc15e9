"""With forecasts that come true, the largest gap is the smallest possible, or the preferred pace."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from speed_controller import SpeedController
from speed_controller.clairvoyant import smallest_largest_gap

if TYPE_CHECKING:
    from collections.abc import Callable

PACE, PACE_MAX = 0.05, 0.08


@dataclass(frozen=True)
class Truth:
    """A cloud that sends `grant` tokens evenly from `first` on, and a device that goes on from `ready` on."""

    first: float
    cloud_tpot: float
    grant: int
    ready: float
    device_tpot: float
    own: int

    @property
    def arrivals(self) -> list[float]:
        cloud = [self.first + i * self.cloud_tpot for i in range(self.grant)]
        return cloud + [self.ready + i * self.device_tpot for i in range(self.own)]

    def tell(self, controller: SpeedController, now: float) -> None:
        left = sum(at > now for at in self.arrivals[: self.grant])
        controller.expect_device(now, self.ready, self.device_tpot)
        controller.cloud_state(now, remaining=left, tpot=None if left == 0 else self.cloud_tpot, round_trip=0.05)


@st.composite
def truths(draw: st.DrawFn) -> Truth:
    first, cloud_tpot, grant = draw(st.floats(0.05, 0.5)), draw(st.floats(0.002, 0.06)), draw(st.integers(1, 60))
    last = first + (grant - 1) * cloud_tpot
    ready = last + draw(st.floats(0, 3))
    return Truth(first, cloud_tpot, grant, ready, draw(st.floats(0.005, PACE_MAX)), draw(st.integers(1, 60)))


def play(driver: Callable[..., Any], truth: Truth) -> Any:
    made = driver(pace=PACE, pace_max=PACE_MAX)
    made.tell = truth.tell

    def token(controller: SpeedController, now: float) -> None:
        controller.arrived(now)
        truth.tell(controller, now)

    events = [(at, token) for at in truth.arrivals]
    return made.play([(0.0, truth.tell), *events, (truth.arrivals[-1], SpeedController.finished)])


@settings(deadline=None, max_examples=80)
@given(truth=truths())
def test_no_gap_above_the_slowest_pace_where_a_schedule_without_one_exists(
    driver: Callable[..., Any], truth: Truth
) -> None:
    assume(smallest_largest_gap(truth.arrivals) <= PACE_MAX)

    assert max(play(driver, truth).gaps) <= PACE_MAX + 1e-6


@settings(deadline=None, max_examples=80)
@given(truth=truths())
def test_close_to_the_best_schedule_in_hindsight(driver: Callable[..., Any], truth: Truth) -> None:
    assume(smallest_largest_gap(truth.arrivals) <= PACE_MAX)  # beyond, more grant is counted on first
    # The device's own pace is looked ahead to, whether the answer gets that long or not.
    best = max(smallest_largest_gap(truth.arrivals, PACE), truth.device_tpot)

    assert max(play(driver, truth).gaps) <= 1.06 * best


@settings(deadline=None, max_examples=80)
@given(truth=truths())
def test_the_pace_changes_gradually(driver: Callable[..., Any], truth: Truth) -> None:
    assume(smallest_largest_gap(truth.arrivals) <= PACE_MAX)
    shown = play(driver, truth)

    for (before, after), waited in zip(pairwise(shown.gaps), pairwise(shown.waited), strict=True):
        if not any(waited):
            assert before * 0.9 - 1e-9 <= after <= before * 1.1 + 1e-9
