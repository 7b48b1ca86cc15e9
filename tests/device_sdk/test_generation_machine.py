"""The generation state machine in virtual time: any speeds, any fault, always one whole answer and one end."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_sdk.generation.commands import AskCloud, StopCloud
from device_sdk.generation.inputs import CloudTokens, StepDone, Submitted
from device_sdk.generation.machine import GenerationMachine, IllegalInputError
from device_sdk.generation.plan import SIDES, Patience, Request
from device_sdk.report import Source
from device_sdk.settings import Mode
from device_sdk.testing.simulation import SimulatedCloud, SimulatedDevice, Simulation
from model_runtime.testing import ScriptedTokenizer
from speed_controller.estimates import CloudForecast, DeviceForecast
from speed_controller.settings import PaceSettings
from speed_controller.split import SplitSettings
from tests.device_sdk.virtual import script, whole

TOKENIZER = ScriptedTokenizer()
EOS = next(iter(TOKENIZER.eos_ids))


def simulate(
    *,
    mode: Mode = Mode.SPLIT,
    prompt: int = 500,
    length: int = 60,
    max_tokens: int = 1_000,
    grant: int | None = None,
    pace: PaceSettings | None = None,
    device: SimulatedDevice | None = None,
    cloud: SimulatedCloud | None = None,
    rates: bool = True,
    stop: tuple[str, ...] = (),
    cancel_at: float | None = None,
    run: bool = True,
) -> Simulation:
    device = device or SimulatedDevice(script(length))
    forecast = DeviceForecast(prefill_rate=device.prefill_rate, tpot=device.tpot) if rates else DeviceForecast()
    machine = GenerationMachine(
        Request(tuple(range(40, 40 + 50)) * (prompt // 50), max_tokens, stop),
        SIDES[mode],
        SplitSettings(grant=grant, pace=pace or PaceSettings(), max_grant=max(256, grant or 0)),
        TOKENIZER,
        forecast,
        CloudForecast(),
        Patience(first_token=5.0, idle=1.0),
    )
    simulation = Simulation(machine, device, cloud or SimulatedCloud(script(length)), cancel_at)
    return simulation.run() if run else simulation


def shown_ids(simulation: Simulation) -> tuple[int, ...]:
    return tuple(show.token for show in simulation.shown if show.token is not None)


def sources(simulation: Simulation) -> list[Source]:
    return [piece.source for piece in simulation.machine.output.pieces]


def check_one_whole_answer(simulation: Simulation, model) -> None:
    assert [done.reason for done in simulation.done] == ["eos"]
    assert simulation.machine.output.token_ids == whole(model)
    assert shown_ids(simulation) == whole(model)
    assert "".join(show.text for show in simulation.shown) == simulation.machine.output.text()


def test_the_cloud_begins_and_the_device_finishes() -> None:
    simulation = simulate(grant=20)
    check_one_whole_answer(simulation, script(60))
    assert sources(simulation) == [Source.CLOUD] * 20 + [Source.DEVICE] * 40
    assert simulation.machine.handover_index == 20
    assert simulation.handovers == [20]
    assert simulation.machine.device.agreement.share == 1.0
    assert simulation.cloud.tokens_made == 20
    assert not simulation.notices


@given(
    grant=st.one_of(st.none(), st.integers(0, 120)),
    length=st.integers(1, 80),
    prompt=st.integers(1, 40).map(lambda n: 50 * n),
    prefill_rate=st.floats(50, 20_000),
    tpot=st.floats(0.001, 0.15),
    cloud_ttft=st.floats(0.01, 3.0),
    cloud_tpot=st.floats(0.001, 0.2),
    link=st.floats(0.0005, 0.2),
    rates=st.booleans(),
    pace=st.sampled_from([PaceSettings(), PaceSettings(mode="off"), PaceSettings(mode="fixed")]),
)
@settings(max_examples=200, deadline=None)
def test_the_same_model_on_both_sides_gives_its_own_answer_at_every_grant_and_speed(
    grant, length, prompt, prefill_rate, tpot, cloud_ttft, cloud_tpot, link, rates, pace
) -> None:
    simulation = simulate(
        grant=grant,
        prompt=prompt,
        pace=pace,
        rates=rates,
        device=SimulatedDevice(script(length), prefill_rate, tpot),
        cloud=SimulatedCloud(script(length), cloud_ttft, cloud_tpot, link),
    )
    check_one_whole_answer(simulation, script(length))
    assert simulation.machine.device.agreement.share in (1.0, None)


@given(
    fault=st.sampled_from(["refuses", "lost_after", "silent_after"]),
    after=st.integers(0, 30),
    mode=st.sampled_from([Mode.SPLIT, Mode.PREFER_IN_CLOUD, Mode.PREFER_ON_DEVICE]),
)
@settings(deadline=None)
def test_a_cloud_that_goes_loses_nothing(fault: str, after: int, mode: Mode) -> None:
    cloud = SimulatedCloud(script(60))
    setattr(cloud, fault, True if fault == "refuses" else after)
    simulation = simulate(mode=mode, grant=25, cloud=cloud)
    check_one_whole_answer(simulation, script(60))
    kinds = [notice.kind for notice in simulation.notices]
    if fault == "refuses" and mode is not Mode.PREFER_ON_DEVICE:
        assert kinds == ["cloud_refused"]
    elif mode is Mode.PREFER_IN_CLOUD:
        assert kinds == ["cloud_lost"]
    else:  # In a split the device may be there before anybody misses the cloud.
        assert kinds in ([], ["cloud_lost"])


@given(step=st.integers(1, 60), mode=st.sampled_from([Mode.SPLIT, Mode.PREFER_ON_DEVICE]), grant=st.integers(0, 30))
@settings(deadline=None)
def test_a_device_engine_that_dies_has_the_cloud_finish(step: int, mode: Mode, grant: int) -> None:
    simulation = simulate(mode=mode, grant=grant, device=SimulatedDevice(script(60), fails_at_step=step))
    check_one_whole_answer(simulation, script(60))
    if simulation.machine.device.steps >= step:
        assert simulation.notices[-1].kind in ("device_failed", "device_unusable")
        assert Source.CLOUD in sources(simulation) or step > 60


@given(step=st.integers(1, 30), after=st.integers(0, 20))
@settings(deadline=None)
def test_both_failing_ends_once_with_what_there_is_all_shown(step: int, after: int) -> None:
    cloud = SimulatedCloud(script(60), lost_after=after, faulty_attempts=99)
    simulation = simulate(grant=25, device=SimulatedDevice(script(60), fails_at_step=step), cloud=cloud)
    assert [done.reason for done in simulation.done] == ["failed"]
    assert simulation.machine.output.token_ids == whole(script(60))[: len(simulation.machine.output)]
    assert shown_ids(simulation) == simulation.machine.output.token_ids


def test_only_in_cloud_asks_again_after_a_lost_link_and_goes_on() -> None:
    simulation = simulate(mode=Mode.ONLY_IN_CLOUD, cloud=SimulatedCloud(script(60), lost_after=7))
    check_one_whole_answer(simulation, script(60))
    assert simulation.machine.cloud.attempts == 2
    assert sources(simulation) == [Source.CLOUD] * 60


def test_only_in_cloud_gives_up_after_the_attempts_allowed() -> None:
    cloud = SimulatedCloud(script(60), lost_after=2, faulty_attempts=99)
    simulation = simulate(mode=Mode.ONLY_IN_CLOUD, cloud=cloud)
    assert [done.reason for done in simulation.done] == ["failed"]
    assert simulation.machine.cloud.attempts == 3
    assert simulation.machine.output.token_ids == whole(script(60))[:6]


def test_only_on_device_asks_the_cloud_nothing() -> None:
    simulation = simulate(mode=Mode.ONLY_ON_DEVICE)
    check_one_whole_answer(simulation, script(60))
    assert simulation.grants == []
    assert simulation.machine.handover_index is None


@given(at=st.floats(0, 4), mode=st.sampled_from(list(Mode)))
@settings(deadline=None)
def test_a_cancelled_generation_ends_at_once_and_lets_the_cloud_go(at: float, mode: Mode) -> None:
    simulation = simulate(mode=mode, grant=25, cancel_at=at)
    assert len(simulation.done) == 1
    if simulation.done[0].reason == "cancelled":
        assert simulation.now == at
        served = simulation.cloud.served
        assert served is None or served.closed or simulation.machine.cloud.state.stopping


@given(max_tokens=st.integers(0, 70), grant=st.integers(0, 80))
@settings(deadline=None)
def test_max_tokens_is_kept_to_the_token(max_tokens: int, grant: int) -> None:
    simulation = simulate(grant=grant, max_tokens=max_tokens)
    assert simulation.machine.output.token_ids == whole(script(60))[:max_tokens]
    assert [done.reason for done in simulation.done] == ["length" if max_tokens <= 60 else "eos"]


@given(cut=st.integers(0, 55), size=st.integers(1, 5), grant=st.integers(0, 60))
@settings(deadline=None)
def test_a_stop_string_ends_the_answer_wherever_the_seam_is(cut: int, size: int, grant: int) -> None:
    text = b"".join(TOKENIZER.token_bytes(token) for token in whole(script(60))).decode()
    stop = text[cut : cut + size]
    simulation = simulate(grant=grant, stop=(stop,))
    assert [done.reason for done in simulation.done] == ["stop"]
    assert simulation.machine.output.text() == text[: text.index(stop)]
    assert "".join(show.text for show in simulation.shown) == text[: text.index(stop)]


@given(grant=st.integers(0, 40), length=st.integers(1, 50), link=st.floats(0.001, 0.1))
@settings(deadline=None)
def test_text_travels_without_a_lost_or_doubled_character(grant: int, length: int, link: float) -> None:
    """The cloud's tokens are bytes of multi-byte characters; the device goes on in tokens of its own."""
    answer = ("north gate — 東京 ✓ naïve café, " * 4)[:length]
    data = answer.encode()

    def cloud_next(output: Sequence[int]) -> int | None:
        return data[len(output)] if len(output) < len(data) else None

    def device_next(output: Sequence[int]) -> int | None:
        done = b"".join(TOKENIZER.token_bytes(token) for token in output)
        assert data.startswith(done)
        try:
            rest = TOKENIZER.encode(data[len(done) :].decode())
        except UnicodeDecodeError:
            return data[len(done)]  # within a character: its next byte
        return rest[0] if rest else None

    cloud = SimulatedCloud(cloud_next, link=link, as_text=lambda token: bytes([token]))
    simulation = simulate(grant=grant, device=SimulatedDevice(device_next), cloud=cloud)
    assert [done.reason for done in simulation.done] == ["eos"]
    assert simulation.machine.output.text() == answer
    assert "".join(show.text for show in simulation.shown) == answer


def test_a_late_device_is_bridged_by_an_extension() -> None:
    """The forecast says 2,000 tokens/s; the device does 300."""
    device = SimulatedDevice(script(150), prefill_rate=300.0)
    simulation = simulate(prompt=1_000, length=150, device=device, cloud=SimulatedCloud(script(150)), run=False)
    simulation.machine.device.forecast = DeviceForecast(prefill_rate=2_000.0, tpot=0.04)
    simulation.run()
    check_one_whole_answer(simulation, script(150))
    assert len(simulation.grants) > 1
    assert simulation.grants == sorted(simulation.grants)
    assert "extended" in [notice.kind for notice in simulation.notices]
    gaps = [
        b - a
        for a, b in zip(simulation.machine.showing.releases, simulation.machine.showing.releases[1:], strict=False)
    ]
    assert max(gaps) < 0.2


def test_the_first_token_is_shown_when_it_arrives() -> None:
    simulation = simulate()
    assert simulation.machine.showing.releases[0] == simulation.machine.showing.arrivals[0] == pytest.approx(0.12)


def test_the_grant_covers_the_device_prefill_and_not_much_more() -> None:
    """1,000 tokens at 1,000 tokens/s against a cloud at 0.1 s: k ≥ (1.0 - T1) / (0.05 - 0.001), with T1 not known."""
    simulation = simulate(prompt=1_000, length=150, cloud=SimulatedCloud(script(150)))
    assert 21 <= simulation.grants[0] <= 30
    assert len(simulation.grants) == 1
    check_one_whole_answer(simulation, script(150))
    gaps = [
        b - a
        for a, b in zip(simulation.machine.showing.releases, simulation.machine.showing.releases[1:], strict=False)
    ]
    assert max(gaps) <= 1.5 * 0.05


def test_a_device_that_is_there_first_asks_nothing_of_the_cloud() -> None:
    simulation = simulate(prompt=50, rates=True, run=False)
    simulation.machine.cloud.forecast.observe_first_token(5.0)
    simulation.run()
    assert simulation.grants == []
    check_one_whole_answer(simulation, script(60))


def test_tokens_that_do_not_follow_are_refused_and_the_device_goes_on() -> None:
    simulation = simulate(run=False)
    machine = simulation.machine
    commands = machine.handle(Submitted(), 0.0)
    attempt = next(command.attempt for command in commands if isinstance(command, AskCloud))
    machine.handle(CloudTokens(attempt, 0, (whole(script(60))[0],)), 0.1)
    refused = machine.handle(CloudTokens(attempt, 2, (1,)), 0.11)
    assert StopCloud(attempt, "cancelled") in refused
    assert "expected" in machine.notices[0]
    assert machine.output.token_ids == whole(script(60))[:1]


def test_more_tokens_than_granted_are_refused() -> None:
    simulation = simulate(run=False, grant=3)
    machine = simulation.machine
    machine.handle(Submitted(), 0.0)
    machine.handle(CloudTokens(1, 0, whole(script(60))[:4]), 0.1)
    assert "expected token 0 of 3" in machine.notices[0]
    assert len(machine.output) == 0


def test_inputs_before_the_beginning_are_a_defect_of_the_driver() -> None:
    machine = simulate(run=False).machine
    with pytest.raises(IllegalInputError, match="StepDone"):
        machine.handle(StepDone(1, (), None, 0.1), 0.0)
    machine.handle(Submitted(), 0.0)
    with pytest.raises(IllegalInputError, match="Submitted"):
        machine.handle(Submitted(), 0.1)
