from __future__ import annotations

import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_runtime.core import Cancellation
from model_runtime.emulated import EmulatedEngine
from model_runtime.profiles import HardwareProfile, load_profile, profile_text
from model_runtime.testing import Faults, ScriptedEngine
from planner.errors import MeasurementError
from planner.profiling import DevicePlan, batch_share, measure_device, overhead_ms, relative_deviation
from planner.profiling.device import Provenance
from planner.profiling.fits import rising
from planner.profiling.link import jitter

WHAT = Provenance("mine", "a test's engine", "2026-11-21", "a test", "pd-plan profile device")


class Clock:
    """Time that passes only where somebody waits."""

    now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float, cancellation: Cancellation | None) -> bool:
        self.now += seconds
        return False


def hardware(jitter: float = 0.0, batch: float | None = 0.1) -> HardwareProfile:
    return HardwareProfile(
        name="true",
        title="true",
        source="made up",
        prefill_tokens_per_s=((128, 1000.0), (1024, 800.0), (4096, 400.0)),
        decode_ms=((16, 20.0), (4096, 60.0)),
        pass_overhead_ms=5.0,
        jitter=jitter,
        batch_share=batch,
    )


def measured(profile: HardwareProfile, plan: DevicePlan | None = None, **engine: int) -> HardwareProfile:
    clock = Clock()
    emulated = EmulatedEngine(ScriptedEngine(**engine), profile, clock=clock, sleep=clock.sleep)  # type: ignore[arg-type]
    return measure_device(emulated, plan or DevicePlan(), WHAT, clock=clock)


def test_what_is_measured_is_what_the_engine_is() -> None:
    true = hardware()
    found = measured(true, context_length=8192)
    assert found.pass_overhead_ms == pytest.approx(5.0, rel=0.02)
    for tokens in (128, 512, 2048, 4096):
        assert found.prompt_ms(tokens) == pytest.approx(true.prompt_ms(tokens), rel=0.02)
        assert found.pass_ms([(tokens - 1, 1)]) == pytest.approx(true.pass_ms([(tokens - 1, 1)]), rel=0.02)
    assert found.batch_share == pytest.approx(0.1, rel=0.05)
    assert found.jitter == pytest.approx(0.0, abs=0.01)


def test_jitter_is_told_from_the_passes() -> None:
    found = measured(hardware(jitter=0.1), DevicePlan(decode_steps=200), context_length=8192)
    assert found.jitter == pytest.approx(0.1, rel=0.3)


def test_sustained_work_on_steady_hardware_loses_nothing() -> None:
    found = measured(hardware(), DevicePlan(sustained=20.0), context_length=8192)
    assert [seconds for seconds, _ in found.sustained] == pytest.approx([5, 10, 15, 20], abs=1.5)
    assert [share for _, share in found.sustained] == pytest.approx([1.0] * 4, rel=0.01)


def test_an_engine_without_batching_has_no_share() -> None:
    assert measured(hardware(batch=None), context_length=8192).batch_share is None


def test_it_says_that_it_was_measured_and_can_be_read_again() -> None:
    found = measured(hardware(), context_length=1024)
    assert found.measured is not None
    assert max(tokens for tokens, _ in found.prefill_tokens_per_s) <= 1024
    assert found.measured.machine == "a test"
    assert msgspec.json.decode(profile_text(found), type=HardwareProfile) == found


def test_published_profiles_say_that_nobody_here_measured_them() -> None:
    assert load_profile("phone-snapdragon-8-elite").measured is None


def test_a_context_that_is_too_short_is_named() -> None:
    with pytest.raises(MeasurementError, match="context of 64 tokens is too short"):
        measured(hardware(), context_length=64)


def test_a_failing_engine_is_a_failed_measurement() -> None:
    engine = ScriptedEngine(faults=Faults(fail_at=3))
    with pytest.raises(MeasurementError, match="the engine failed"):
        measure_device(engine, DevicePlan(), WHAT)


@given(base=st.floats(1, 1000), each=st.floats(0, 50))
def test_the_overhead_is_the_slope_over_passes(base: float, each: float) -> None:
    times = {chunk: base + each * -(-1024 // chunk) for chunk in (64, 128, 256, 512)}
    assert overhead_ms(times, 1024) == pytest.approx(each, abs=1e-6)


def test_one_outlier_is_no_deviation() -> None:
    assert relative_deviation([10.0, 10.0, 10.0, 10.0, 500.0]) == 0.0


def test_batch_share_needs_more_than_one_sequence() -> None:
    assert batch_share({1: 10.0}) is None
    assert batch_share({1: 10.0, 2: 11.0, 4: 13.0}) == pytest.approx(0.1)


def test_points_that_do_not_rise_are_left_out_and_named() -> None:
    assert rising([(1, 5.0), (2, 4.0), (3, 6.0)]) == ([(1, 5.0), (3, 6.0)], [2])


def test_jitter_is_the_mean_extra_delay_each_way() -> None:
    rng = random.Random(2)
    trips = [0.040 + rng.expovariate(1 / 0.005) + rng.expovariate(1 / 0.005) for _ in range(20_000)]
    assert jitter(trips) == pytest.approx(0.005, rel=0.05)
