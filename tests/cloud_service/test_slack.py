"""When a generation's next token is needed, from what its device says of its buffer."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud_service.scheduler.slack import Report, Targets, first_token_needed, next_token_needed

TARGETS = Targets(first_token=1.0, pace=0.05, patience=2.0)


def test_a_first_token_is_needed_by_its_deadline_or_the_target_whichever_is_sooner() -> None:
    assert first_token_needed(10.0, 0.5, None, TARGETS) == 11.5
    assert first_token_needed(10.0, 0.5, 10.7, TARGETS) == 10.7
    assert first_token_needed(10.0, 0.5, 99.0, TARGETS) == 11.5


def test_a_client_that_says_nothing_is_taken_to_read_at_an_even_pace() -> None:
    assert next_token_needed(1, 10.0, 10.0, None, TARGETS) == pytest.approx(10.05)
    assert next_token_needed(20, 10.0, 10.2, None, TARGETS) == pytest.approx(11.0)


def test_a_buffer_lasts_for_what_is_in_hand_and_on_its_way() -> None:
    report = Report(at=12.0, shown=10, pace=0.1)
    assert next_token_needed(15, 10.0, 12.0, report, TARGETS) == pytest.approx(12.5)
    assert next_token_needed(18, 10.0, 12.3, report, TARGETS) == pytest.approx(12.8)


def test_a_device_that_shows_each_token_at_once_is_always_dry() -> None:
    assert next_token_needed(15, 10.0, 12.3, Report(at=12.0, shown=15, pace=0.0), TARGETS) == 12.3


def test_a_device_that_will_be_ready_before_it_runs_dry_can_wait() -> None:
    report = Report(at=12.0, shown=10, pace=0.1, ready_at=12.4)
    assert next_token_needed(15, 10.0, 12.0, report, TARGETS) == 12.0 + TARGETS.patience
    assert next_token_needed(13, 10.0, 12.0, report, TARGETS) == pytest.approx(12.3)


@given(
    st.integers(1, 1000),
    st.floats(0, 1e4),
    st.floats(0, 1e3),
    st.builds(
        Report, st.floats(0, 2e4), st.integers(-(2**31), 2**31), st.floats(0, 1e6), st.none() | st.floats(0, 1e9)
    ),
)
def test_whatever_a_device_says_it_gets_a_token_within_patience(
    given_tokens: int, first_at: float, took: float, report: Report
) -> None:
    last_at = first_at + took
    needed = next_token_needed(given_tokens, first_at, last_at, report, TARGETS)
    assert math.isfinite(needed)
    assert needed <= last_at + TARGETS.patience
