"""Hardware compiled to fixed lengths: received tokens go where a pass would be padded."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_sdk.generation.device_track import DeviceTrack
from device_sdk.generation.inputs import StepDone
from device_sdk.generation.prompt import PromptTrack
from speed_controller.estimates import DeviceForecast


def track(prompt: int, block: int) -> DeviceTrack:
    made = DeviceTrack(PromptTrack(range(prompt)), DeviceForecast(), None, block)
    made.start(0.0)
    return made


@pytest.mark.parametrize(
    ("received", "filled", "sampled"),
    [(0, 0, 0), (3, 3, 3), (6, 6, 6), (9, 6, None)],
    ids=["nothing received", "fewer than the padding", "exactly as many", "more"],
)
def test_received_tokens_fill_the_last_pass_of_the_prompt(received: int, filled: int, sampled: int | None) -> None:
    device, context = track(prompt=10, block=16), list(range(100, 100 + received))
    step = device.next_step(context, 0.0)
    assert step is not None
    assert step.tokens == (*range(10), *context[:filled])
    assert step.received == tuple(context[: filled + 1])
    assert (step.first_received, step.sample_at) == (0, sampled)
    device.finish_step(StepDone(step.number, (), sampled and 7, 0.1), 0.1)
    assert device.fed == 10 + filled


def test_hardware_without_blocks_reads_the_prompt_alone() -> None:
    step = track(prompt=10, block=1).next_step([100, 101], 0.0)
    assert step is not None
    assert step.tokens == tuple(range(10))


@given(prompt=st.integers(1, 60), received=st.integers(0, 60), block=st.integers(2, 20))
def test_every_token_is_consumed_once_and_filling_never_takes_a_pass_more(
    prompt: int, received: int, block: int
) -> None:
    device, context, passes, consumed = track(prompt, block), [1000 + index for index in range(received)], 0, []
    while len(consumed) < prompt + received:
        step = device.next_step(context, 0.0)
        assert step is not None
        assert step.keep == len(consumed)
        assert len(step.tokens) <= block
        consumed += step.tokens
        passes += 1
        device.finish_step(StepDone(step.number, (), None, 0.1), 0.1)
    assert consumed == [*range(prompt), *context]
    assert passes == -(-(prompt + received) // block)


def test_a_short_pass_tells_of_the_whole_block_that_it_took() -> None:
    """Else a prompt of two tokens would have a device of blocks look as slow as two tokens per block."""
    device = track(prompt=2, block=16)
    step = device.next_step([], 0.0)
    assert step is not None
    device.finish_step(StepDone(step.number, (), 7, 0.1), 0.1)
    assert device.ready_in(0, [100], 0, 0.1) == pytest.approx(0.1)  # one block more
