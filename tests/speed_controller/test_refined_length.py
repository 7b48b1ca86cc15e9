"""How much of a prompt the device reads when a refinement is on its way, against reading it token by token."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speed_controller import SettingError
from speed_controller.split import refined_length

USUAL = {"left": 2_000, "keep_ratio": 0.25, "arrival": 0.3, "prefill_rate": 1_000.0}


def test_the_device_is_ready_at_t_ref_plus_what_is_kept_of_the_rest() -> None:
    """t_ref + ρ(L − p)/r = 0.3 + 0.25 · 1,700 / 1,000 = 0.725 s."""
    assert refined_length(**USUAL) / 1_000 == pytest.approx(0.725)
    assert refined_length(**USUAL, least=600) == 300 + 600
    assert refined_length(**{**USUAL, "arrival": 5.0}) == 2_000


@given(
    left=st.integers(0, 500),
    keep_ratio=st.floats(0.01, 1),
    steps=st.integers(0, 600),
    rate=st.floats(1, 5_000),
    least=st.integers(0, 600),
)
def test_it_is_what_a_device_reads_that_does_not_wait(
    left: int, keep_ratio: float, steps: int, rate: float, least: int
) -> None:
    read, ahead = 0, left
    for step in range(10_000):
        if step == steps:
            ahead = min(ahead, max(math.ceil(keep_ratio * ahead), least))
        if ahead == 0:
            break
        read, ahead = read + 1, ahead - 1
    arrival = (steps + 0.5) / rate  # half a token's time after that token
    assert refined_length(left, keep_ratio=keep_ratio, arrival=arrival, prefill_rate=rate, least=least) == read


@pytest.mark.parametrize(
    ("field", "value"),
    [("left", -1), ("keep_ratio", 0.0), ("keep_ratio", 1.1), ("arrival", -0.1), ("arrival", math.nan),
     ("prefill_rate", 0.0), ("prefill_rate", math.inf)],
)  # fmt: skip
def test_a_bad_argument_is_named(field: str, value: float) -> None:
    with pytest.raises(SettingError) as error:
        refined_length(**{**USUAL, field: value})
    assert error.value.field == field
