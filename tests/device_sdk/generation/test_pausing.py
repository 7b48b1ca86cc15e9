"""Paused and resumed at any time, with the KV cache kept or lost: the same answer, and no gap of the pause's length."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_sdk.generation.commands import AskCloud, Show, Step, StopCloud
from device_sdk.generation.inputs import (
    CancelRequested,
    CloudTokens,
    DeviceEmptied,
    PauseRequested,
    ResumeRequested,
    StepDone,
    Submitted,
)
from device_sdk.settings import Mode
from device_sdk.testing.simulation import SimulatedCloud, SimulatedDevice
from tests.device_sdk.test_generation_machine import check_one_whole_answer, simulate
from tests.device_sdk.virtual import script


@given(
    mode=st.sampled_from([Mode.SPLIT, Mode.ONLY_ON_DEVICE, Mode.ONLY_IN_CLOUD, Mode.PREFER_IN_CLOUD]),
    pauses=st.lists(st.tuples(st.floats(0.001, 1.5), st.floats(0.0, 40.0), st.booleans()), min_size=1, max_size=3),
    grant=st.one_of(st.none(), st.integers(0, 60)),
)
@settings(max_examples=60, deadline=None)
def test_a_pause_changes_no_word_and_no_time(mode: Mode, pauses, grant) -> None:
    """`pauses`: after how long, for how long (longer than every deadline, too), and whether the KV cache is lost."""
    simulation = simulate(mode=mode, grant=grant, cloud=SimulatedCloud(script(60), link=0.01), run=False)
    at, paused = 0.0, 0.0
    for after, length, emptied in pauses:
        at += after
        simulation.loop.at(at, lambda: simulation.feed(PauseRequested()))
        if emptied:
            simulation.loop.at(at + length, lambda: simulation.feed(DeviceEmptied()))
        at += length
        paused += length
        simulation.loop.at(at, lambda: simulation.feed(ResumeRequested()))
    simulation.run()
    check_one_whole_answer(simulation, script(60))
    releases = simulation.machine.showing.releases
    assert max((b - a for a, b in pairwise(releases)), default=0.0) < 1.5
    assert not [notice for notice in simulation.notices if notice.kind != "extended"]


def machine_at_work():
    simulation = simulate(grant=20, run=False)
    machine = simulation.machine
    commands = machine.handle(Submitted(), 0.0)
    (step,) = [command for command in commands if isinstance(command, Step)]
    (ask,) = [command for command in commands if isinstance(command, AskCloud)]
    return machine, step, ask


def test_while_it_is_paused_nothing_is_begun_or_shown_and_the_clouds_place_is_free() -> None:
    machine, step, ask = machine_at_work()
    assert machine.handle(PauseRequested(), 0.1) == [StopCloud(ask.attempt, "cancelled")]
    assert machine.wakeup() is None
    # What was under way still counts.
    assert machine.handle(CloudTokens(ask.attempt, 0, (40, 41)), 0.2) == []
    assert machine.handle(StepDone(step.number, (), None, 0.1), 0.3) == []
    assert len(machine.output) == 2
    resumed = machine.handle(ResumeRequested(), 99.0)
    (again,) = [command for command in resumed if isinstance(command, AskCloud)]
    assert again.output == (40, 41)
    assert [command.index for command in resumed if isinstance(command, Show)] == [0]
    assert machine.wakeup() > 99.0


def test_twice_is_once_and_cancelling_a_paused_generation_ends_it() -> None:
    machine, _, _ = machine_at_work()
    machine.handle(PauseRequested(), 0.1)
    assert machine.handle(PauseRequested(), 0.2) == []
    assert machine.handle(ResumeRequested(), 1.0) != []
    machine.handle(ResumeRequested(), 2.0)
    machine.handle(PauseRequested(), 3.0)
    machine.handle(CancelRequested(), 4.0)
    assert machine.finish_reason == "cancelled"


@pytest.mark.parametrize("at", [0.05, 0.3, 0.8])
def test_a_lost_cache_is_filled_again(at: float) -> None:
    simulation = simulate(mode=Mode.ONLY_ON_DEVICE, device=SimulatedDevice(script(60)), run=False)
    simulation.loop.at(at, lambda: simulation.feed(PauseRequested()))
    simulation.loop.at(at + 1.0, lambda: simulation.feed(DeviceEmptied()))
    simulation.loop.at(at + 2.0, lambda: simulation.feed(ResumeRequested()))
    simulation.run()
    check_one_whole_answer(simulation, script(60))
    first_after = next(step for began, _, step in simulation.passes if began >= at + 2.0)
    assert first_after.keep == 0
    assert (
        simulation.cache
        == [*simulation.machine.request.prompt, *simulation.machine.output.token_ids][: len(simulation.cache)]
    )
