"""A device that leaves the beginning to the cloud, and a cloud that may give only so many tokens."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_sdk.generation.machine import GenerationMachine
from device_sdk.generation.plan import SIDES, Patience, RefineWish, Request
from device_sdk.settings import Mode
from device_sdk.testing.simulated_cloud import SimulatedRefinement
from device_sdk.testing.simulation import SimulatedCloud, SimulatedDevice, Simulation
from model_runtime.testing import ScriptedTokenizer
from speed_controller import PaceSettings, SplitSettings
from speed_controller.estimates import CloudForecast, DeviceForecast
from tests.device_sdk.test_generation_machine import check_one_whole_answer
from tests.device_sdk.virtual import script

TOKENIZER = ScriptedTokenizer()
PROMPT = tuple(range(40, 90)) * 20


def simulate(
    *,
    wait: float = 0.0,
    limit: int | None = None,
    refine: bool = False,
    mode: Mode = Mode.SPLIT,
    grant: int | None = None,
    device: SimulatedDevice | None = None,
    cloud: SimulatedCloud | None = None,
) -> Simulation:
    wish = RefineWish(0.25, ((990, 1000),)) if refine else None
    machine = GenerationMachine(
        Request(PROMPT, 200, refine=wish, device_wait=wait, cloud_limit=limit),
        SIDES[mode],
        SplitSettings(grant=grant, max_grant=100, pace=PaceSettings()),
        TOKENIZER,
        DeviceForecast(prefill_rate=1_000.0, tpot=0.04),
        CloudForecast(ttft=0.2),
        Patience(first_token=5.0, idle=1.0),
    )
    return Simulation(machine, device or SimulatedDevice(script(60)), cloud or SimulatedCloud(script(60))).run()


def begins(simulation: Simulation) -> float:
    return simulation.passes[0][0]


def test_it_begins_with_the_clouds_first_token_where_nothing_else_is_to_come() -> None:
    simulation = simulate(wait=3.0, cloud=SimulatedCloud(script(60), ttft=0.5))
    assert begins(simulation) == pytest.approx(0.52, abs=0.01)
    check_one_whole_answer(simulation, script(60))
    # The bridge is as much longer as the device begins later: the grant knows.
    assert simulation.grants[0] > simulate().grants[0]
    releases = simulation.machine.showing.releases
    assert max(b - a for a, b in pairwise(releases)) < 0.15


def test_it_begins_when_its_time_has_come_where_the_cloud_is_slow() -> None:
    assert begins(simulate(wait=0.7, cloud=SimulatedCloud(script(60), ttft=2.0))) == pytest.approx(0.7)


@pytest.mark.parametrize("fault", ["refuses", "lost_after"])
def test_it_begins_at_once_where_the_cloud_goes(fault: str) -> None:
    cloud = SimulatedCloud(script(60))
    setattr(cloud, fault, True if fault == "refuses" else 0)
    simulation = simulate(wait=3.0, cloud=cloud)
    assert begins(simulation) < 0.1
    check_one_whole_answer(simulation, script(60))


def test_after_a_refinement_it_reads_only_what_matters() -> None:
    """That is the energy it saves: what it would have read before the refinement came."""
    cloud = SimulatedCloud(script(60), ttft=0.5, refinements=[SimulatedRefinement(0.5, ((0, 200),))])
    late = simulate(wait=3.0, refine=True, grant=40, cloud=cloud)
    cloud = SimulatedCloud(script(60), ttft=0.5, refinements=[SimulatedRefinement(0.5, ((0, 200),))])
    early = simulate(refine=True, grant=40, cloud=cloud)
    assert late.machine.device.prompt.fed == 210 < early.machine.device.prompt.fed
    check_one_whole_answer(late, script(60))


def test_an_answer_that_ends_before_costs_the_device_nothing() -> None:
    simulation = simulate(wait=1.0, refine=True, cloud=SimulatedCloud(script(3), ttft=0.2))
    assert not simulation.passes
    check_one_whole_answer(simulation, script(3))


def test_a_spent_cloud_is_not_asked() -> None:
    simulation = simulate(limit=0, mode=Mode.SPLIT)
    assert not simulation.grants
    check_one_whole_answer(simulation, script(60))


def test_the_limit_holds_where_the_device_dies_too() -> None:
    simulation = simulate(limit=25, device=SimulatedDevice(script(60), fails_at_step=1))
    assert simulation.machine.cloud.given == len(simulation.machine.output) == 25
    assert [done.reason for done in simulation.done] == ["failed"]
    assert "the 25 tokens that it may" in simulation.notices[-1].message


@given(
    wait=st.floats(0, 4),
    limit=st.one_of(st.none(), st.integers(0, 80)),
    ttft=st.floats(0.01, 3),
    refine=st.booleans(),
    mode=st.sampled_from(list(Mode)),
    fails=st.one_of(st.none(), st.integers(1, 20)),
    lost=st.one_of(st.none(), st.integers(0, 30)),
)
@settings(max_examples=100, deadline=None)
def test_always_one_end_and_never_beyond_the_limit(
    wait: float, limit: int | None, ttft: float, refine: bool, mode: Mode, fails: int | None, lost: int | None
) -> None:
    simulation = simulate(
        wait=wait,
        limit=limit,
        refine=refine,
        mode=mode,
        device=SimulatedDevice(script(60), fails_at_step=fails),
        cloud=SimulatedCloud(script(60), ttft=ttft, lost_after=lost),
    )
    assert len(simulation.done) == 1
    assert limit is None or simulation.machine.cloud.given <= limit
    if fails is None and mode is not Mode.ONLY_IN_CLOUD:
        check_one_whole_answer(simulation, script(60))
