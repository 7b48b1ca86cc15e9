"""Emulated hardware in virtual time: never shorter than the profile, never shorter than the machine."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_runtime.core import Cancellation, Chunk, Logits
from model_runtime.emulated import EmulatedEngine
from model_runtime.errors import Cancelled
from model_runtime.profiles import HardwareProfile
from model_runtime.testing import Faults, ScriptedEngine


@dataclass
class Clock:
    """Time that passes only where somebody waits; a sleep may end `early` or late, as real ones do."""

    now: float = 0.0
    early: float = 0.0
    late: float = 0.0
    cancel_during: Cancellation | None = None
    sleeps: int = 0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float, cancellation: Cancellation | None) -> bool:
        self.sleeps += 1
        early = self.early if self.sleeps == 1 else 0.0
        self.now += max(0.0, seconds - early) + self.late
        if self.cancel_during is not None:
            self.cancel_during.cancel()
        return cancellation is not None and cancellation.cancelled


def profile(
    *, jitter: float = 0.0, overhead: float = 0.0, batch_share: float | None = 0.0, block: int = 1
) -> HardwareProfile:
    return HardwareProfile(
        name="test",
        title="Test hardware",
        source="made up",
        prefill_tokens_per_s=((100, 1000.0), (1000, 500.0)),
        prefill_block=block,
        decode_ms=((1, 10.0), (1001, 20.0)),
        pass_overhead_ms=overhead,
        jitter=jitter,
        batch_share=batch_share,
    )


@pytest.fixture
def _priority_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests' own thread runs passes here and is to stay as fast as it is."""
    monkeypatch.setattr(os, "setpriority", lambda *_: None)


def emulated(
    clock: Clock, hardware: HardwareProfile, *, real_s: float = 0.0, seed: int = 0, faults: Faults | None = None
) -> EmulatedEngine:
    """Over an engine whose every pass takes `real_s` on the same clock."""

    def real(seconds: float, cancellation: Cancellation | None) -> bool:
        clock.now += seconds
        return cancellation is not None and cancellation.cancelled

    engine = ScriptedEngine(delay=lambda _: real_s, sleep=real, faults=faults or Faults())
    return EmulatedEngine(engine, hardware, seed=seed, clock=clock, sleep=clock.sleep)


PASSES = st.lists(st.integers(1, 60), min_size=1, max_size=4)
SLACK = 1e-9  # of adding floats


@settings(deadline=None, max_examples=50)
@given(
    passes=PASSES,
    real_s=st.floats(0, 0.5),
    jitter=st.sampled_from([0.0, 0.05, 0.3]),
    early=st.floats(0, 0.01),
    late=st.floats(0, 0.01),
    seed=st.integers(0, 100),
)
def test_never_shorter_than_the_profile_nor_than_the_machine(
    passes: list[int], real_s: float, jitter: float, early: float, late: float, seed: int
) -> None:
    hardware = profile(jitter=jitter)
    clock, ideal = Clock(early=early, late=late), Clock()
    # The same seed on a machine that takes no time and sleeps exactly shows what the profile asks for.
    engine, reference = emulated(clock, hardware, real_s=real_s, seed=seed), emulated(ideal, hardware, seed=seed)
    sequence, other = engine.open(), reference.open()
    surely_slower = possibly_slower = 0
    for tokens in passes:
        began, ideal_began = clock.now, ideal.now
        engine.forward([Chunk(sequence, [1] * tokens)])
        reference.forward([Chunk(other, [1] * tokens)])
        took, asked = clock.now - began, ideal.now - ideal_began
        assert took >= asked - SLACK
        assert took >= real_s - SLACK
        assert took <= max(asked, real_s) + 2 * late + SLACK
        surely_slower += real_s > asked + SLACK
        possibly_slower += real_s > asked - SLACK
    assert surely_slower <= engine.slower_passes <= possibly_slower
    assert engine.passes == len(passes)


def test_a_pass_takes_what_the_profile_says() -> None:
    clock = Clock()
    engine = emulated(clock, profile(overhead=1.0))
    sequence = engine.open()
    engine.forward([Chunk(sequence, [1] * 100)])  # 100 tokens at 1,000 tokens/s, and 1 ms for the pass
    assert clock.now == pytest.approx(0.101)
    engine.forward([Chunk(sequence, [1])])  # decoded at 100 tokens in context: 10 ms and a tenth of the rise
    assert clock.now == pytest.approx(0.101 + 0.001 + 0.010 + 0.010 * 99 / 1000)


@settings(deadline=None)
@given(cuts=st.lists(st.integers(20, 200), min_size=1, max_size=8))
def test_a_prompt_costs_the_same_however_it_is_cut(cuts: list[int]) -> None:
    """Where no piece is so short that reading the weights alone takes longer (20 ms here)."""
    hardware = profile()
    total = sum(cuts)
    begins = [sum(cuts[:index]) for index in range(len(cuts))]
    pieces = sum(hardware.pass_ms([(begin, new)]) for begin, new in zip(begins, cuts, strict=True))
    assert pieces == pytest.approx(hardware.pass_ms([(0, total)]), rel=1e-9)
    assert hardware.pass_ms([(0, total)]) == pytest.approx(hardware.prompt_ms(total))


def test_interpolates_between_points_and_holds_outside() -> None:
    hardware = profile()
    assert hardware.prompt_ms(50) == pytest.approx(50)
    assert hardware.prompt_ms(550) == pytest.approx(550 / 750 * 1000)
    assert hardware.prompt_ms(2000) == pytest.approx(4000)
    assert hardware.pass_ms([(501, 1)]) == pytest.approx(15)
    assert hardware.pass_ms([(5000, 1)]) == pytest.approx(20)


def test_no_pass_is_shorter_than_one_decoded_token() -> None:
    assert profile().pass_ms([(0, 3)]) == pytest.approx(10)


def test_a_fixed_shape_computes_its_padding() -> None:
    hardware = profile(block=100)
    assert hardware.pass_ms([(0, 60)]) == pytest.approx(100)
    assert hardware.pass_ms([(0, 101)]) == pytest.approx(hardware.prompt_ms(200))
    # A few tokens are decoded one by one instead.
    assert hardware.pass_ms([(0, 4)]) == pytest.approx(40)
    assert emulated(Clock(), hardware).info.capabilities.chunk_length == 100


@pytest.mark.parametrize(("block", "tokens", "ms"), [(1, 500, 643.857), (100, 4, 4)])
def test_where_a_pass_costs_more_than_its_tokens_a_prompt_is_not_read_for_nothing(
    block: int, tokens: int, ms: float
) -> None:
    """As measured of small models: decoding at a short context is all overhead of the pass."""
    hardware = msgspec.structs.replace(profile(overhead=1.0, block=block), decode_ms=((1, 0.0001), (1001, 2.0)))
    assert hardware.pass_ms([(0, tokens)]) == pytest.approx(ms, rel=1e-3)  # at 778 tokens/s; in four passes


def test_a_batch_reads_the_weights_once() -> None:
    one = profile().pass_ms([(1, 1)])
    assert profile(batch_share=0.0).pass_ms([(1, 1)] * 8) == pytest.approx(one)
    assert profile(batch_share=0.1).pass_ms([(1, 1)] * 8) == pytest.approx(one * 1.7)
    assert profile(batch_share=None).pass_ms([(1, 1)] * 8) == pytest.approx(one * 8)
    # Beside a prefill that takes longer than reading the weights, one decoded token comes free.
    assert profile(batch_share=0.1).pass_ms([(0, 100), (1, 1)]) == pytest.approx(100)
    assert profile(batch_share=None).pass_ms([(0, 100), (1, 1)]) == pytest.approx(110)


def test_jitter_has_the_spread_asked_for_and_no_bias() -> None:
    clock = Clock()
    engine = emulated(clock, profile(jitter=0.1), seed=4)
    sequence = engine.open()
    times = []
    for _ in range(1_000):
        began = clock.now
        engine.forward([Chunk(sequence, [1])])
        engine.truncate(sequence, 0)
        times.append((clock.now - began) / 0.010)
    mean = sum(times) / len(times)
    spread = (sum((time - mean) ** 2 for time in times) / len(times)) ** 0.5
    assert mean == pytest.approx(1.0, abs=0.013)  # 4 standard errors
    assert spread == pytest.approx(0.1, abs=0.01)


def test_a_slower_machine_is_counted_and_said_so(caplog: pytest.LogCaptureFixture) -> None:
    engine = emulated(Clock(), profile(), real_s=0.015)
    sequence = engine.open()
    assert "slower_passes" not in engine.info.details
    with caplog.at_level(logging.WARNING, logger="model_runtime.emulated"):
        engine.forward([Chunk(sequence, [1])])  # the profile's 10 ms, the machine's 15
        engine.forward([Chunk(sequence, [1] * 100)])  # the profile's 100 ms
        engine.forward([Chunk(sequence, [1])])
    assert engine.slower_passes == 2
    assert engine.worst_excess_ms == pytest.approx(5.0)
    assert engine.info.details["slower_passes"] == "2 of 3"
    assert len(caplog.records) == 1
    assert "slower than the emulated test" in caplog.text


@pytest.mark.usefixtures("_priority_kept")
def test_a_yielding_pass_does_its_work_at_the_end_of_its_time() -> None:
    clock = Clock()
    began: list[float] = []

    def work(chunks: Sequence[Chunk]) -> float:
        began.append(clock.now)
        return 0.0002 * len(chunks[0].tokens)

    engine = ScriptedEngine(delay=work, sleep=lambda seconds, _: clock.sleep(seconds, None))
    yielding = EmulatedEngine(engine, profile(), clock=clock, sleep=clock.sleep, yields=True)
    sequence = yielding.open()
    for tokens in (100, 100, 50, 1, 1):
        start, count = clock.now, len(began)
        yielding.forward([Chunk(sequence, [1] * tokens)])
        took = clock.now - start
        [at] = began[count:]
        if count in (0, 3):  # the first of its size: nothing is known yet
            assert at == start
        else:
            assert at - start == pytest.approx(took - 2 * 0.0002 * tokens)
    assert yielding.slower_passes == 0


@pytest.mark.usefixtures("_priority_kept")
def test_a_yielding_pass_that_took_longer_than_foreseen_is_counted_and_the_next_begins_earlier() -> None:
    clock, cost = Clock(), [0.0001]
    engine = ScriptedEngine(
        delay=lambda chunks: cost[0] * len(chunks[0].tokens), sleep=lambda seconds, _: clock.sleep(seconds, None)
    )
    yielding = EmulatedEngine(engine, profile(), clock=clock, sleep=clock.sleep, yields=True)
    sequence = yielding.open()
    yielding.forward([Chunk(sequence, [1] * 100)])
    cost[0] = 0.0009
    yielding.forward([Chunk(sequence, [1] * 100)])
    assert yielding.slower_passes == 1
    yielding.forward([Chunk(sequence, [1] * 100)])
    assert yielding.slower_passes == 1


@pytest.mark.usefixtures("_priority_kept")
def test_a_yielding_pass_cancelled_before_its_work_does_none() -> None:
    engine = ScriptedEngine()
    yielding = EmulatedEngine(engine, profile(), yields=True)
    sequence = yielding.open()
    yielding.forward([Chunk(sequence, [5, 6])])
    passes, cancellation = len(engine.passes), Cancellation()
    cancellation.cancel()
    with pytest.raises(Cancelled):
        yielding.forward([Chunk(sequence, [1] * 100)], cancellation)
    assert (yielding.length(sequence), len(engine.passes)) == (2, passes)


def test_what_a_chunk_that_nobody_saw_took_too_long_is_made_good() -> None:
    """So a prompt's time is the profile's where its chunks together are fast enough."""
    clock, cost = Clock(), [0.15, 0.15, 0.02, 0.02]
    engine = ScriptedEngine(delay=lambda _: cost.pop(0), sleep=lambda seconds, _: clock.sleep(seconds, None))
    hardware = EmulatedEngine(engine, profile(), clock=clock, sleep=clock.sleep)
    sequence = hardware.open()
    ends = []
    for logits in (Logits.NONE, Logits.NONE, Logits.NONE, Logits.LAST):
        hardware.forward([Chunk(sequence, [1] * 100, logits)])
        ends.append(clock.now)
    asked = [hardware.profile.prompt_ms(tokens) / 1000 for tokens in (100, 200, 300, 400)]
    assert ends == pytest.approx([0.15, 0.30, *asked[2:]])
    assert hardware.slower_passes == 2


@pytest.mark.parametrize(("logits", "idle", "took"), [(Logits.LAST, 0.0, 0.1), (Logits.NONE, 0.03, 0.08)])
def test_what_was_seen_too_late_or_left_idle_is_not_made_good(logits: Logits, idle: float, took: float) -> None:
    clock, cost = Clock(), [0.15, 0.0]
    engine = ScriptedEngine(delay=lambda _: cost.pop(0), sleep=lambda seconds, _: clock.sleep(seconds, None))
    hardware = EmulatedEngine(engine, profile(), clock=clock, sleep=clock.sleep)
    sequence = hardware.open()
    hardware.forward([Chunk(sequence, [1] * 100, logits)])
    hardware.truncate(sequence, 0)
    clock.now += idle
    began = clock.now
    hardware.forward([Chunk(sequence, [1] * 100)])
    assert clock.now - began == pytest.approx(took)


@pytest.mark.skipif(sys.platform != "linux", reason="threads have priorities of their own on Linux only")
def test_a_yielding_engine_lowers_the_priority_of_the_thread_that_runs_passes_and_of_no_other() -> None:
    def run() -> tuple[int, int]:
        before = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
        yielding = EmulatedEngine(ScriptedEngine(), profile(), yields=True)
        yielding.forward([Chunk(yielding.open(), [1])])
        return before, os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    own = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    with ThreadPoolExecutor(1) as pool:
        before, after = pool.submit(run).result()
    assert after > before
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == own


def test_cancelled_while_it_waits_is_as_before() -> None:
    cancellation = Cancellation()
    engine = emulated(Clock(cancel_during=cancellation), profile())
    sequence, other = engine.open(), engine.open()
    twin = ScriptedEngine()
    prompt = twin.open()
    with pytest.raises(Cancelled):
        engine.forward([Chunk(sequence, [5, 6]), Chunk(other, [7])], cancellation)
    assert (engine.length(sequence), engine.length(other)) == (0, 0)
    result = engine.forward([Chunk(sequence, [5, 6])])[0].logits
    assert (result == twin.forward([Chunk(prompt, [5, 6])])[0].logits).all()


def test_says_that_it_is_emulated_and_what_it_is_not() -> None:
    engine = emulated(Clock(), profile(batch_share=None))
    assert engine.info.hardware == "emulated: Test hardware (really no hardware: scripted)"
    assert engine.info.details["emulated_source"] == "made up"
    assert not engine.info.capabilities.batched
    assert engine.info.engine == "scripted"
    engine.shutdown()
