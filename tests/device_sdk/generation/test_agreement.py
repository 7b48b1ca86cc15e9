"""A device that disagrees with the cloud leaves it the answer, within the largest grant; one that agrees takes over."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_sdk.generation.agreement import LEAST_CHECKED, WINDOW, Agreement
from device_sdk.generation.machine import GenerationMachine
from device_sdk.generation.plan import SIDES, Patience, Request
from device_sdk.report import Source
from device_sdk.settings import Mode
from device_sdk.testing.simulation import NextToken, SimulatedCloud, SimulatedDevice, Simulation
from model_runtime.testing import ScriptedTokenizer
from speed_controller import PaceSettings, SettingError, SplitSettings
from speed_controller.estimates import CloudForecast, DeviceForecast
from tests.device_sdk.virtual import script, whole

TOKENIZER = ScriptedTokenizer()
RIGHT = script(60)


def wrong_until(index: int) -> NextToken:
    """A model that sees what comes next only from output token `index` on."""
    return lambda output: RIGHT(output) if len(output) >= index else 32


def simulate(
    device: NextToken,
    *,
    least: float | None = 0.8,
    limit: int = 40,
    grant: int = 12,
    prefill_rate: float = 1_000.0,
    cloud: SimulatedCloud | None = None,
    cloud_limit: int | None = None,
) -> Simulation:
    split = SplitSettings(grant=grant, max_grant=limit, min_agreement=least, pace=PaceSettings())
    machine = GenerationMachine(
        Request(tuple(range(40, 90)) * 6, 1_000, cloud_limit=cloud_limit),
        SIDES[Mode.SPLIT],
        split,
        TOKENIZER,
        DeviceForecast(prefill_rate=prefill_rate, tpot=0.04),
        CloudForecast(),
        Patience(first_token=5.0, idle=1.0),
    )
    return Simulation(machine, SimulatedDevice(device, prefill_rate), cloud or SimulatedCloud(RIGHT)).run()


def from_cloud(simulation: Simulation) -> int:
    return [piece.source for piece in simulation.machine.output.pieces].count(Source.CLOUD)


@pytest.mark.parametrize("linger", [0.0, 0.3], ids=["has ended", "can be extended"])
def test_the_cloud_goes_on_until_the_device_agrees(linger: float) -> None:
    """Whether its first grant has ended or not when the device has read it."""
    simulation = simulate(wrong_until(14), cloud=SimulatedCloud(RIGHT, linger=linger))
    assert simulation.machine.output.token_ids == whole(RIGHT)
    assert 14 < from_cloud(simulation) < 40
    assert [notice.kind for notice in simulation.notices] == ["extended"]
    assert "agrees with" in simulation.notices[0].message


def test_without_a_gate_it_takes_over_all_the_same() -> None:
    simulation = simulate(wrong_until(14), least=None)
    assert from_cloud(simulation) == 12
    assert simulation.machine.output.token_ids != whole(RIGHT)


def test_a_device_that_agrees_is_not_held_up() -> None:
    simulation = simulate(RIGHT)
    assert from_cloud(simulation) == 12
    assert not simulation.notices
    assert simulation.machine.output.token_ids == whole(RIGHT)


def test_no_more_than_the_largest_grant_is_asked_for() -> None:
    simulation = simulate(wrong_until(50), limit=30)
    assert from_cloud(simulation) == simulation.machine.cloud.allowed == 30
    assert simulation.machine.handover_index == 30


@pytest.mark.parametrize("fault", ["refuses", "lost_after", "silent_after"])
def test_a_cloud_that_goes_leaves_the_answer_to_the_device(fault: str) -> None:
    """Also while the device is waiting for it."""
    cloud = SimulatedCloud(RIGHT)
    setattr(cloud, fault, True if fault == "refuses" else 14)
    simulation = simulate(wrong_until(50), cloud=cloud)
    assert simulation.done[0].reason in ("eos", "length")
    assert len(simulation.machine.output) >= (0 if fault == "refuses" else 14)
    assert sum(piece.source is Source.DEVICE for piece in simulation.machine.output.pieces) > 0


@given(
    wrong=st.integers(0, 60),
    least=st.floats(0, 1),
    limit=st.integers(0, 80),
    grant=st.integers(0, 30),
    rate=st.floats(200, 20_000),
    cap=st.one_of(st.none(), st.integers(0, 60)),
)
@settings(max_examples=100, deadline=None)
def test_one_whole_answer_within_the_limits(
    wrong: int, least: float, limit: int, grant: int, rate: float, cap: int | None
) -> None:
    grant = min(grant, limit)
    simulation = simulate(wrong_until(wrong), least=least, limit=limit, grant=grant, prefill_rate=rate, cloud_limit=cap)
    assert len(simulation.done) == 1
    assert simulation.machine.cloud.given <= limit
    assert cap is None or simulation.machine.cloud.given <= cap
    shown = [show.token for show in simulation.shown if show.token is not None]
    assert tuple(shown) == simulation.machine.output.token_ids


@given(checked=st.lists(st.booleans()))
def test_shares_are_of_all_and_of_the_latest(checked: Sequence[bool]) -> None:
    agreement = Agreement()
    agreement.note(checked)
    assert agreement.share == (sum(checked) / len(checked) if checked else None)
    latest = checked[-WINDOW:]
    assert agreement.latest == (sum(latest) / len(latest) if len(latest) >= LEAST_CHECKED else None)


@pytest.mark.parametrize("value", [-0.1, 1.1])
def test_what_is_no_share_is_refused(value: float) -> None:
    with pytest.raises(SettingError, match="min_agreement"):
        SplitSettings(min_agreement=value)
