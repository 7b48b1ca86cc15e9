"""Passes of about a tenth of a second, within bounds and within memory."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_sdk.generation.chunks import (
    LARGEST_CHUNK,
    LEAST_CHUNK,
    MOST_SCORES,
    PASS_SECONDS,
    chunk_at,
    within_memory,
)
from device_sdk.generation.device_track import DeviceTrack
from device_sdk.generation.inputs import StepDone
from device_sdk.generation.prompt import PromptTrack
from speed_controller.estimates import DeviceForecast


@given(rate=st.floats(1.0, 1e6))
def test_a_pass_takes_a_tenth_of_a_second_between_the_least_and_the_largest(rate: float) -> None:
    chunk = chunk_at(rate)
    assert LEAST_CHUNK <= chunk <= LARGEST_CHUNK
    if LEAST_CHUNK < chunk < LARGEST_CHUNK:
        assert chunk / rate == pytest.approx(PASS_SECONDS, abs=1 / rate)


@given(chunk=st.integers(LEAST_CHUNK, LARGEST_CHUNK), fed=st.integers(0, 200_000))
def test_memory_shortens_passes_behind_much_context_and_never_below_the_least(chunk: int, fed: int) -> None:
    kept = within_memory(chunk, fed)
    assert LEAST_CHUNK <= kept <= chunk
    assert kept in {LEAST_CHUNK, chunk} or kept * (fed + 1) <= MOST_SCORES < (kept + 1) * (fed + 1)


def test_a_fast_device_reads_a_long_prompt_in_passes_that_get_shorter() -> None:
    device, lengths = DeviceTrack(PromptTrack(range(6_000)), DeviceForecast(), None), []
    device.start(0.0)
    while device.prompt.left:
        step = device.next_step([], 0.0)
        assert step is not None
        lengths.append((step.keep, len(step.tokens)))
        device.finish_step(StepDone(step.number, (), None, len(step.tokens) / 10_000), 0.0)
    assert max(length for _, length in lengths) == LARGEST_CHUNK
    assert all(length * (fed + 1) <= MOST_SCORES for fed, length in lengths)
    assert lengths[-2][1] < 70
