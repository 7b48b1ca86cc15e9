from __future__ import annotations

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from speed_controller import InfeasibleSplitError, SettingError, grant_needed

FEASIBLE = {"ready_without": 3.0, "cloud_ttft": 0.3, "pace": 0.05, "prefill_rate": 500.0, "device_tpot": 0.04}


def largest_stall(grant: int, *, ready_without: float, cloud_ttft: float, pace: float, prefill_rate: float) -> float:
    """How long the screen waits for the device when `grant` tokens are shown at the pace from the cloud's first on."""
    runs_dry = cloud_ttft + grant * pace
    return ready_without + grant / prefill_rate - runs_dry


@given(
    ready_without=st.floats(0, 60),
    cloud_ttft=st.floats(0, 5),
    pace=st.floats(0.01, 0.2),
    prefill_rate=st.floats(20, 5000),
)
def test_it_is_the_least_grant_without_a_stall(
    ready_without: float, cloud_ttft: float, pace: float, prefill_rate: float
) -> None:
    assume(pace > 1.01 / prefill_rate)
    world = {
        "ready_without": ready_without, "cloud_ttft": cloud_ttft, "pace": pace, "prefill_rate": prefill_rate
    }  # fmt: skip

    grant = grant_needed(**world, device_tpot=pace / 2)

    assert largest_stall(grant, **world) <= 1e-6
    if grant > 0:
        assert largest_stall(grant - 1, **world) > -1e-6


def test_a_device_that_is_there_first_needs_no_cloud() -> None:
    assert grant_needed(**{**FEASIBLE, "ready_without": 0.2}) == 0


@pytest.mark.parametrize("pace", [0.001, 1 / 500])
def test_a_pace_at_which_the_device_never_catches_up(pace: float) -> None:
    with pytest.raises(InfeasibleSplitError, match="never catches up"):
        grant_needed(**{**FEASIBLE, "pace": pace})


def test_a_pace_that_the_device_cannot_keep() -> None:
    with pytest.raises(InfeasibleSplitError, match="falls behind"):
        grant_needed(**{**FEASIBLE, "device_tpot": 0.051})


@pytest.mark.parametrize("field", sorted(FEASIBLE))
@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
def test_a_bad_argument_is_named(field: str, value: float) -> None:
    with pytest.raises(SettingError) as error:
        grant_needed(**{**FEASIBLE, field: value})
    assert error.value.field == field
