"""A plan's settings at the speeds measured since: raised where these need more, in closed form and over a session."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_sdk.generation.commands import Step
from device_sdk.generation.machine import GenerationMachine
from device_sdk.generation.plan import SIDES, Request
from device_sdk.settings import Mode
from device_sdk.testing.simulation import SimulatedCloud, SimulatedDevice, Simulation
from planner.simulator.device import TOKEN, Tokens
from speed_controller import CloudForecast, DeviceForecast, PaceSettings, SplitSettings
from speed_controller.around_plan import around_plan
from speed_controller.split_config import Bucket, Route, Slo, SplitConfig

PROMPT, LENGTH, LIMIT = 2000, 90, 0.1
PLAN = SplitConfig((Bucket(None, Route.SPLIT, grant=28),), Slo(max_gap_p99=LIMIT), max_grant=120)


@dataclass(slots=True)
class Hot(SimulatedDevice):
    """Half as fast once it has made `cool` passes more."""

    cool: int = 1_000_000

    def seconds(self, step: Step) -> float | None:
        self.cool -= 1
        usual = SimulatedDevice.seconds(self, step)
        return None if usual is None else usual * (2 if self.cool < 0 else 1)


def answer_length(output: object) -> int | None:
    return TOKEN if len(output) < LENGTH else None  # type: ignore[arg-type]


def test_a_device_that_throttles_in_mid_session_keeps_its_largest_gap_at_the_cost_of_grant() -> None:
    """It slows down while it reads the third prompt: an extension saves that answer, the next ones ask for more."""
    phone = Hot(answer_length, prefill_rate=1_000, tpot=0.04)
    device, cloud = DeviceForecast(prefill_rate=1_000, tpot=0.04), CloudForecast(ttft=0.12, round_trip=0.04)
    settings = PLAN.settings(PLAN.buckets[0])
    first, given_in_all, gaps = [], [], []
    for number in range(6):
        if number == 2:
            phone.cool = 2
        adjusted = around_plan(settings, PROMPT, PROMPT, device, cloud)
        machine = GenerationMachine(
            Request((TOKEN,) * PROMPT, 10_000), SIDES[Mode.SPLIT], adjusted, Tokens(), device, cloud
        )
        played = Simulation(machine, phone, SimulatedCloud(answer_length)).run()
        assert machine.finish_reason == "eos"
        first.append(played.grants[0])
        given_in_all.append(played.grants[-1])
        gaps.append(float(np.diff(machine.showing.releases).max()))
    assert first[:3] == [28, 28, 28]
    assert given_in_all[:2] == [28, 28]
    assert given_in_all[2] > 28
    assert all(50 <= grant <= 120 for grant in first[3:])
    assert max(gaps) <= LIMIT


@given(
    rate=st.floats(50, 20_000),
    ttft=st.floats(0, 5),
    tpot=st.floats(0, 0.5),
    unread=st.integers(0, 20_000),
    read=st.sampled_from([0, 5_000]),
    grant=st.integers(0, 60),
    keep=st.sampled_from([None, 0.3]),
)
def test_a_grant_is_never_below_the_plans_nor_above_its_largest(rate, ttft, tpot, unread, read, grant, keep) -> None:
    planned = SplitSettings(grant, keep_ratio=keep, max_grant=60)
    adjusted = around_plan(
        planned, unread, unread + read, DeviceForecast(prefill_rate=rate, tpot=tpot or None), CloudForecast(ttft=ttft)
    )
    assert grant <= (adjusted.grant or 0) <= 60
    assert replace(adjusted, grant=grant) == planned


def test_what_is_as_fast_as_planned_changes_nothing_and_what_is_not_known_neither() -> None:
    planned, cloud = SplitSettings(30, pace=PaceSettings(pace=0.05, pace_max=0.08)), CloudForecast(ttft=0.1)
    assert around_plan(planned, 2000, 2000, DeviceForecast(prefill_rate=1000), cloud) is not None
    assert around_plan(planned, 2000, 2000, DeviceForecast(prefill_rate=1000), cloud) == planned
    assert around_plan(planned, 2000, 2000, DeviceForecast(), cloud) is planned
    free = replace(planned, grant=None)
    assert around_plan(free, 9000, 9000, DeviceForecast(prefill_rate=1000), cloud) is free
    slow = DeviceForecast(prefill_rate=500)
    assert around_plan(replace(planned, keep_ratio=None), 2000, 2000, slow, cloud).grant == 50  # 3.9 s / 78 ms
    assert around_plan(replace(planned, keep_ratio=0.25), 2000, 2000, slow, cloud).grant == 30  # reads 538 tokens


def test_the_slowest_even_pace_of_a_plan_keeps_to_what_it_promises() -> None:
    bucket = Bucket(None, Route.SPLIT, grant=5, pace=0.08)
    assert bucket.settings(PaceSettings(), 5).pace.pace_max == pytest.approx(0.128)
    assert bucket.settings(PaceSettings(), 5, 0.1).pace.pace_max == pytest.approx(0.09)
    assert bucket.settings(PaceSettings(), 5, 0.05).pace.pace_max == pytest.approx(0.08)


def test_of_a_prompt_that_the_device_has_read_half_of_the_cloud_still_reads_all() -> None:
    planned, cloud = SplitSettings(1, keep_ratio=None, pace=PaceSettings(pace=0.05, pace_max=0.08)), CloudForecast()
    cloud.observe_first_token(1.0, 2000)
    slow = DeviceForecast(prefill_rate=500)
    assert around_plan(planned, 1000, 1000, slow, cloud).grant == 20  # ready at 2 s, the cloud at 0.5 s: 1.5 s / 78 ms
    assert around_plan(planned, 1000, 2000, slow, cloud).grant == 13  # at 1 s: 1 s / 78 ms
