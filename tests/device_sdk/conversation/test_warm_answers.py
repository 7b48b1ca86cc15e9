"""A turn over what earlier turns left in the KV cache, and prompts that are longer than it, in virtual time: the device
says nothing before it has read what the question needs."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_sdk.fitting import fit
from device_sdk.generation.machine import GenerationMachine
from device_sdk.generation.plan import SIDES, Fit, Patience, RefineWish, Request
from device_sdk.generation.reading import Reading
from device_sdk.generation.spans import union, within
from device_sdk.report import Guard, Source
from device_sdk.reporting import answer_of
from device_sdk.settings import Mode
from device_sdk.testing.simulated_cloud import SimulatedCloud, SimulatedRefinement
from device_sdk.testing.simulation import SimulatedDevice, Simulation
from model_runtime.testing import ScriptedTokenizer
from speed_controller.estimates import CloudForecast, DeviceForecast
from speed_controller.split import SplitSettings
from tests.device_sdk.test_prompt_track import positions
from tests.device_sdk.virtual import script, whole

TOKENIZER = ScriptedTokenizer()
FIRST = 10_000
LENGTH = 1_000
PROTECTED = ((0, 12), (LENGTH - 40, LENGTH))
ANSWER = script(60)
PASSED = Guard("passed")
KEEP_ALL = Guard("flat", "the best tenth holds 12% of the importance")


@dataclass(slots=True)
class Warm(Simulation):
    """The device's KV cache holds something at the start."""

    held: tuple[int, ...] = ()

    @property
    def caches(self) -> list[list[int]]:
        """As they were after each pass. Raises RuntimeError where a pass was to follow what was not there."""
        cache, seen = list(self.held), []
        for _, _, step in self.passes:
            if step.keep > len(cache):
                raise RuntimeError(f"step {step.number} was to follow token {step.keep}; the cache held {len(cache)}")
            cache[step.keep :] = step.tokens
            seen.append(list(cache))
        return seen

    def read(self, number: int) -> list[int]:
        """Positions of the prompt in the cache after pass `number`."""
        return [token - FIRST for token in self.caches[number] if token >= FIRST]


def simulate(
    *refinements: SimulatedRefinement,
    read: tuple[tuple[int, int], ...] = (),
    fitted: Fit | None = None,
    rate: float = 1_000.0,
    ratio: float = 0.25,
    wish: bool = True,
    mode: Mode = Mode.SPLIT,
    cloud: SimulatedCloud | None = None,
    grant: int | None = None,
) -> Warm:
    cloud = cloud or SimulatedCloud(ANSWER, ttft=0.3)
    cloud.refinements = refinements
    machine = GenerationMachine(
        Request(
            range(FIRST, FIRST + LENGTH),
            200,
            refine=RefineWish(ratio, PROTECTED) if wish else None,
            read=read,
            fit=fitted,
        ),
        SIDES[mode],
        SplitSettings(grant=grant, keep_ratio=ratio),
        TOKENIZER,
        DeviceForecast(prefill_rate=rate, tpot=0.04),
        CloudForecast(ttft=0.3, tpot=0.02),
        Patience(first_token=5.0, idle=1.0),
    )
    held = tuple(FIRST + position for position in sorted(positions(read, LENGTH)))
    simulation = Warm(machine, SimulatedDevice(ANSWER, prefill_rate=rate), cloud, held=held)
    simulation.run()
    return simulation


def spoke_after(simulation: Warm) -> int | None:
    """The number of the pass that gave the device's first own token; None where it gave none."""
    first = next((i for i, piece in enumerate(simulation.machine.output.pieces) if piece.source is Source.DEVICE), None)
    if first is None:
        return None
    return next(i for i, (_, _, step) in enumerate(simulation.passes) if step.sample_at == first)


SPANS = (
    st.lists(st.integers(0, LENGTH), unique=True, max_size=12)
    .map(sorted)
    .map(lambda borders: tuple(zip(borders[::2], borders[1::2], strict=False)))
)


@given(
    read=SPANS,
    keep=st.one_of(st.none(), SPANS.filter(bool)),
    guard=st.sampled_from([PASSED, PASSED, KEEP_ALL]),
    after=st.floats(0, 3),
    rate=st.floats(200, 8_000),
    room=st.one_of(st.none(), st.integers(200, LENGTH + 50)),
    grant=st.one_of(st.none(), st.integers(0, 40)),
    lost_after=st.one_of(st.none(), st.none(), st.integers(0, 30)),
)
@settings(max_examples=80, deadline=None)
def test_the_device_says_nothing_before_it_has_read_what_the_question_needs(
    read, keep, guard, after, rate, room, grant, lost_after
) -> None:
    ratio, fitted = (0.25, None) if room is None else fit(LENGTH, room, 0.25)
    refinements = [] if keep is None else [SimulatedRefinement(after, keep, guard=guard)]
    cloud = SimulatedCloud(ANSWER, ttft=0.3, lost_after=lost_after)
    simulation = simulate(
        *refinements,
        read=within(read, 0, room or LENGTH),
        fitted=fitted,
        rate=rate,
        ratio=ratio,
        cloud=cloud,
        grant=grant,
    )
    machine = simulation.machine
    spoke = spoke_after(simulation)
    assert len(simulation.done) == 1
    if machine.finish_reason != "failed":
        assert machine.output.token_ids == whole(ANSWER)
    else:  # too long for the device, and the cloud was lost
        assert fitted is not None and lost_after is not None  # noqa: PT018
    caches = [simulation.read(number) for number in range(len(simulation.passes))]
    assert all(cache == sorted(set(cache)) for cache in caches)
    if room is not None:
        assert all(len(cache) <= max(room, len(positions(read, LENGTH))) for cache in caches)
    if spoke is not None:
        protected = positions(PROTECTED, LENGTH)
        needed = {*positions(keep or (), LENGTH), *protected} if guard is PASSED and keep else set(range(LENGTH))
        refined = any(one.stage for one in simulation.refinements)
        assert set(caches[spoke]) >= (needed if refined else set(range(LENGTH)))
        if room is not None:
            assert len(caches[spoke]) <= room


def test_a_warm_device_goes_on_from_what_it_has_read() -> None:
    simulation = simulate(read=((0, 980),), mode=Mode.ONLY_ON_DEVICE)
    assert next(step.keep for _, _, step in simulation.passes) == 980
    assert answer_of(simulation.machine, Mode.ONLY_ON_DEVICE).report.reused_tokens == 980
    assert sum(len(step.tokens) for _, _, step in simulation.passes if step.keep < LENGTH) == 20


def test_what_an_earlier_turn_left_out_is_read_where_the_cloud_says_that_it_matters() -> None:
    """The first 100 and the last 100 tokens before the new turn were read."""
    read = ((0, 100), (800, 900))
    elsewhere = simulate(SimulatedRefinement(0.3, ((400, 450),)), read=read)
    assert elsewhere.machine.device.prompt.reused == 100
    assert elsewhere.read(-1)[:150] == [*range(100), *range(400, 450)]
    same = simulate(SimulatedRefinement(0.3, ((20, 60), (850, 880))), read=read)
    assert same.machine.device.prompt.reused == 200
    assert same.read(-1) == [*range(100), *range(800, 900), *range(900, LENGTH)]
    # It reads the new turn while it waits, but for the last token.
    assert sum(len(step.tokens) for _, end, step in same.passes if end < 0.25) == 99


@pytest.mark.parametrize("wish", [True, False], ids=["asked, none comes", "not asked"])
def test_without_a_refinement_everything_left_out_is_read(wish: bool) -> None:
    simulation = simulate(read=((0, 100), (800, 900)), wish=wish, grant=2)
    assert simulation.machine.device.prompt.reused == 100
    spoke = spoke_after(simulation)
    assert spoke is not None
    assert simulation.read(spoke) == list(range(LENGTH))


def test_the_device_waits_for_a_refinement_no_longer_than_reading_would_take() -> None:
    """700 tokens were left out, read at 1,000 tokens/s: a refinement after 0.6 s is used, one after 0.8 s is not."""
    reused = []
    for after in (0.6, 0.8):
        late = SimulatedRefinement(after, ((20, 60),))
        simulation = simulate(late, read=((0, 100), (800, 900)), cloud=SimulatedCloud(ANSWER, ttft=2.0), grant=5)
        reused.append(simulation.machine.device.prompt.reused)
    assert reused == [200, 100]


def test_a_prompt_longer_than_the_context_is_refined_to_fit() -> None:
    ratio, fitted = fit(LENGTH, 400, 0.5)
    assert (ratio, fitted) == (0.3, Fit(400, 100))
    simulation = simulate(SimulatedRefinement(0.3, ((500, 700),)), fitted=fitted, ratio=ratio)
    read = simulation.read(-1)
    assert read == [*range(100), *range(500, 700), *range(LENGTH - 40, LENGTH)]
    assert simulation.machine.output.pieces[-1].source is Source.DEVICE
    assert not simulation.notices
    # What it read before it knew makes room where what matters needs it.
    full = simulate(SimulatedRefinement(0.3, ((400, 740),)), fitted=fitted, ratio=ratio)
    assert full.read(-1) == [*range(12), *range(400, 740), *range(LENGTH - 40, LENGTH)]
    assert full.machine.output.pieces[-1].source is Source.DEVICE


@pytest.mark.parametrize(
    ("refinements", "says"),
    [
        ((), "no refinement came for a prompt of 1000 tokens, and the device's context has room for 400"),
        ((SimulatedRefinement(0.3, ((0, LENGTH),), guard=KEEP_ALL),), "(flat) than the 400 tokens"),
        ((SimulatedRefinement(0.3, ((100, 600),)),), "(passed) than the 400 tokens"),
    ],
    ids=["none", "all of it matters", "too much matters"],
)
def test_where_it_cannot_be_made_to_fit_the_cloud_finishes_and_it_is_said(refinements, says: str) -> None:
    ratio, fitted = fit(LENGTH, 400, 0.5)
    simulation = simulate(*refinements, fitted=fitted, ratio=ratio)
    assert simulation.machine.output.token_ids == whole(ANSWER)
    assert {piece.source for piece in simulation.machine.output.pieces} == {Source.CLOUD}
    assert simulation.notices[-1].kind == "device_failed"
    assert says in simulation.notices[-1].message


@given(
    tokens=st.lists(st.integers(0, 3), max_size=40),
    taken=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=4),
    other=st.lists(st.integers(0, 3), max_size=40),
    cut=st.integers(0, 45),
)
def test_what_is_read_of_another_text_is_what_comes_before_they_differ(tokens, taken, other, cut: int) -> None:
    reading = Reading(tuple(tokens), within(union(taken), 0, len(tokens)))
    read = [tokens[position] for position in sorted(positions(reading.taken, 40))]
    assert list(reading.ids) == read
    assert list(reading.cut(cut).ids) == read[:cut]
    alike = next(
        (i for i, (a, b) in enumerate(zip(tokens, other, strict=False)) if a != b), min(len(tokens), len(other))
    )
    assert positions(reading.of(other), 40) == {p for p in positions(reading.taken, 40) if p < alike}
