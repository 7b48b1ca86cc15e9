"""A refinement in virtual time: whatever it says and whenever, the answer is whole; and it shortens the bridge."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_sdk.generation.machine import GenerationMachine
from device_sdk.generation.plan import SIDES, Patience, RefineWish, Request
from device_sdk.report import Guard
from device_sdk.reporting import answer_of
from device_sdk.settings import Mode
from device_sdk.testing.simulated_cloud import SimulatedCloud, SimulatedRefinement
from device_sdk.testing.simulation import SimulatedDevice, Simulation
from model_runtime.testing import ScriptedTokenizer
from speed_controller.estimates import LEFT_OUT, CloudForecast, DeviceForecast
from speed_controller.split import SplitSettings
from tests.device_sdk.virtual import script, whole

TOKENIZER = ScriptedTokenizer()
#: Prompt tokens tell their position, and no output token is one of them.
FIRST = 10_000
LENGTH = 2_000
PROTECTED = ((0, 12), (LENGTH - 60, LENGTH))
WISH = RefineWish(0.25, PROTECTED)
ANSWER = script(150)
KEEP_ALL = Guard("flat", "the best tenth holds 12% of the importance")


def quarter(length: int = LENGTH) -> tuple[tuple[int, int], ...]:
    """A quarter of the prompt, in lines of twenty tokens."""
    return tuple((start, start + 20) for start in range(0, length, 80))


def simulate(
    *refinements: SimulatedRefinement,
    wish: RefineWish | None = WISH,
    device: SimulatedDevice | None = None,
    cloud: SimulatedCloud | None = None,
    grant: int | None = None,
    known: CloudForecast | None = None,
    mode: Mode = Mode.SPLIT,
    cancel_at: float | None = None,
) -> Simulation:
    device = device or SimulatedDevice(ANSWER)
    cloud = cloud or SimulatedCloud(ANSWER, ttft=0.3)
    cloud.refinements = refinements
    machine = GenerationMachine(
        Request(range(FIRST, FIRST + LENGTH), 1_000, refine=wish),
        SIDES[mode],
        SplitSettings(grant=grant),
        TOKENIZER,
        DeviceForecast(prefill_rate=1_000.0, tpot=0.04),
        known or CloudForecast(),
        Patience(first_token=5.0, idle=1.0),
    )
    return Simulation(machine, device, cloud, cancel_at).run()


def prompt_positions(simulation: Simulation) -> list[int]:
    return [token - FIRST for token in simulation.cache if token >= FIRST]


def check_context(simulation: Simulation) -> None:
    """The device's context is a subsequence of the prompt with all that is protected, then its view of the answer."""
    read = prompt_positions(simulation)
    assert read == sorted(set(read))
    assert [token - FIRST for token in simulation.cache[: len(read)]] == read  # the prompt first, contiguous
    written = tuple(simulation.cache[len(read) :])
    assert written == simulation.machine.output.token_ids[: len(written)]
    if simulation.machine.device.prompt.done and simulation.passes:
        protected = {position for start, end in PROTECTED for position in range(start, end)}
        running = (
            simulation.machine.device.state.step.tokens if hasattr(simulation.machine.device.state, "step") else ()
        )
        assert protected <= {*read, *(token - FIRST for token in running)}


def largest_gap(simulation: Simulation) -> float:
    return max(after - before for before, after in pairwise(simulation.machine.showing.releases))


SPAN = st.tuples(st.integers(0, LENGTH + 300), st.integers(0, LENGTH + 300))
FITTING = (
    st.lists(st.integers(0, LENGTH), unique=True, max_size=40)
    .map(sorted)
    .map(lambda borders: tuple(zip(borders[::2], borders[1::2], strict=False)))
)
REFINEMENT = st.builds(
    SimulatedRefinement,
    after=st.floats(0, 3),
    keep=st.one_of(FITTING, st.lists(SPAN, max_size=5).map(tuple)),
    stage=st.integers(1, 4),
    final=st.booleans(),
    guard=st.sampled_from([Guard("passed"), Guard("passed"), KEEP_ALL, Guard("unavailable")]),
)


@given(
    refinements=st.lists(REFINEMENT, max_size=5),
    rate=st.floats(300, 8_000),
    ttft=st.floats(0.01, 2.0),
    grant=st.one_of(st.none(), st.integers(0, 60)),
    lost_after=st.one_of(st.none(), st.none(), st.integers(0, 30)),
    fails_at=st.one_of(st.none(), st.none(), st.integers(1, 40)),
)
@settings(max_examples=60, deadline=None)
def test_no_refinement_corrupts_an_answer(refinements, rate, ttft, grant, lost_after, fails_at) -> None:
    simulation = simulate(
        *refinements,
        device=SimulatedDevice(ANSWER, rate, 0.03, fails_at_step=fails_at),
        cloud=SimulatedCloud(ANSWER, ttft, lost_after=lost_after),
        grant=grant,
    )
    (done,) = simulation.done
    if lost_after is None or fails_at is None:
        assert done.reason == "eos"
        assert simulation.machine.output.token_ids == whole(ANSWER)
    else:  # where both sides fail, there is what there is
        assert done.reason in ("eos", "failed")
        assert simulation.machine.output.token_ids == whole(ANSWER)[: len(simulation.machine.output)]
    check_context(simulation)
    report = answer_of(simulation.machine, Mode.SPLIT).report
    assert 0 < report.prompt_kept <= 1
    assert report.refinement_stages == len(simulation.refinements) == len(report.timeline.refinements)
    assert (report.refinement_ms is None) == (report.guard is None) == (not simulation.refinements)


def test_a_refinement_removes_what_lies_ahead_and_nothing_else() -> None:
    simulation = simulate(SimulatedRefinement(0.35, quarter()))
    read = set(prompt_positions(simulation))
    at = next(began for began, _, step in simulation.passes if began > 0.37)
    before = {t - FIRST for began, _, step in simulation.passes if began < at for t in step.tokens if t >= FIRST}
    cursor = max(before) + 1
    protected = {position for start, end in PROTECTED for position in range(start, end)}
    kept = {position for start, end in quarter() for position in range(start, end)} | protected
    assert 300 < cursor < 600
    assert before == set(range(cursor))  # up to there the device read everything
    assert read == before | {position for position in kept if position >= cursor}
    report = answer_of(simulation.machine, Mode.SPLIT).report
    assert report.prompt_kept == pytest.approx(len(read) / LENGTH)
    assert report.refinement_ms == pytest.approx(370)
    assert report.guard == Guard("passed")


def test_a_later_stage_decides_about_what_is_still_ahead() -> None:
    """What the first one removed comes back where it is ahead of the cursor, and never behind it."""
    first = SimulatedRefinement(0.05, ((0, 100), (1_500, 1_700)), final=False)
    second = SimulatedRefinement(0.15, ((20, 40), (300, 320), (1_600, 1_700)), stage=2)
    simulation = simulate(first, second, device=SimulatedDevice(ANSWER, prefill_rate=400.0))
    read = prompt_positions(simulation)
    assert set(range(300, 320)) <= set(read)
    assert not {*range(1_500, 1_600)} & set(read)
    assert [(one.stage, one.final) for one in simulation.refinements] == [(1, False), (2, True)]
    assert simulation.refinements[1].kept < simulation.refinements[0].kept


def test_a_late_refinement_changes_nothing() -> None:
    simulation = simulate(SimulatedRefinement(2.5, quarter()), grant=60)
    assert prompt_positions(simulation) == list(range(LENGTH))
    assert simulation.machine.device.prompt.kept_share == 1.0
    assert not [notice for notice in simulation.notices if notice.kind == "refinement_ignored"]


@pytest.mark.parametrize(
    ("refinements", "complaint"),
    [
        ([(1, True, quarter()), (1, True, ((0, 50),))], "stage 1 of the refinement after the final stage 1"),
        ([(2, False, quarter()), (1, False, ((0, 50),))], "stage 1 of the refinement after stage 2"),
        ([(1, True, ())], "keeps nothing"),
        ([(1, True, ((0, LENGTH + 1),))], f"the span 0…{LENGTH + 1}; expected one within 0…{LENGTH}"),
        ([(1, True, ((10, 30), (20, 40)))], "the span 20…40; expected one within 30…2000"),
        ([(1, True, ((30, 30),))], "the span 30…30"),
    ],
)
def test_what_does_not_fit_is_named_and_ignored(refinements, complaint: str) -> None:
    sent = [
        SimulatedRefinement(0.1 + 0.01 * order, keep, stage, final)
        for order, (stage, final, keep) in enumerate(refinements)
    ]
    simulation = simulate(*sent)
    (notice,) = [notice for notice in simulation.notices if notice.kind == "refinement_ignored"]
    assert complaint in notice.message
    assert len(simulation.refinements) == len(sent) - 1
    assert simulation.machine.output.token_ids == whole(ANSWER)
    check_context(simulation)


def test_nobody_asks_for_what_is_not_wanted() -> None:
    simulation = simulate(SimulatedRefinement(0.1, quarter()), wish=None)
    assert not simulation.refinements
    assert prompt_positions(simulation) == list(range(LENGTH))


def test_the_grant_is_asked_for_the_refined_prompt() -> None:
    """2,000 tokens at 1,000 tokens/s; t_ref = 0.32 s: ready(0) = 0.32 + 0.25 · 1.68 = 0.74 s instead of 2 s."""
    known = CloudForecast(ttft=0.32)
    refined = simulate(SimulatedRefinement(0.3, quarter()), known=known)
    plain = simulate(wish=None, known=CloudForecast(ttft=0.32))
    assert refined.grants[0] <= plain.grants[0] / 2
    assert len(refined.grants) == len(plain.grants) == 1
    assert largest_gap(refined) <= 1.5 * 0.05
    assert largest_gap(plain) <= 1.5 * 0.05
    assert refined.machine.handover_index < plain.machine.handover_index / 2


def test_a_device_that_is_early_by_a_refinement_alone_asks_the_cloud_for_it() -> None:
    """2 s for the whole prompt, 0.9 s and some for what is kept, and the cloud's first token after 1.2 s."""
    known = CloudForecast(ttft=1.2)
    known.observe_refinement(0.9)
    known.observe_kept(0.05)
    simulation = simulate(SimulatedRefinement(0.9, quarter()[:5]), known=known, cloud=SimulatedCloud(ANSWER, ttft=1.2))
    assert simulation.grants
    assert simulation.refinements
    assert answer_of(simulation.machine, Mode.SPLIT).report.ttft_ms < 1_300
    assert largest_gap(simulation) <= 1.6 * 0.05


def test_a_refinement_is_waited_for_behind_the_first_token_however_early_a_short_prompts_was() -> None:
    """0.02 s behind the first token, as usual: no reason to ask for what the whole prompt would need."""
    known = CloudForecast(ttft=0.6)
    known.observe_refinement(0.12, 100, first_token=0.1)
    known.observe_kept(0.25)
    simulation = simulate(SimulatedRefinement(0.62, quarter()), known=known, cloud=SimulatedCloud(ANSWER, ttft=0.6))
    assert len(simulation.grants) == 1
    assert simulation.refinements
    assert not simulation.notices
    assert largest_gap(simulation) <= 1.5 * 0.05


def test_a_device_that_is_early_by_itself_asks_nobody_until_nothing_is_known_any_more() -> None:
    known = CloudForecast(ttft=9.0)
    asked = [bool(simulate(wish=None, known=known).grants) for _ in range(LEFT_OUT + 1)]
    assert asked == [False] * LEFT_OUT + [True]


@pytest.mark.parametrize("known", [CloudForecast(), CloudForecast(ttft=0.32)], ids=["first answer", "later answer"])
@pytest.mark.parametrize("refinements", [(SimulatedRefinement(0.3, ((0, LENGTH),), guard=KEEP_ALL),), ()])
def test_a_prompt_that_is_kept_whole_has_its_grant_raised_in_time(refinements, known: CloudForecast) -> None:
    """The guard says so, or no refinement comes at all."""
    simulation = simulate(*refinements, known=known)
    plain = simulate(wish=None, known=CloudForecast(ttft=0.32))
    assert simulation.grants[0] < plain.grants[0] <= max(simulation.grants) + 2
    assert largest_gap(simulation) <= 1.6 * 0.05
    assert simulation.machine.output.token_ids == whole(ANSWER)


def test_a_cloud_that_does_not_refine_is_asked_for_the_whole_prompt_next_time() -> None:
    known = CloudForecast(ttft=0.32)
    simulate(known=known)
    again = simulate(known=known)
    assert len(again.grants) == 1
    assert not again.notices


def test_a_cancelled_generation_reports_what_was_kept() -> None:
    simulation = simulate(SimulatedRefinement(0.1, quarter()), cancel_at=0.5)
    report = answer_of(simulation.machine, Mode.SPLIT).report
    assert report.finish_reason == "cancelled"
    assert 0.25 < report.prompt_kept < 0.4
