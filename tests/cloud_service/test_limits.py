"""Limits of callers and estimates of waits: pure, with the time passed in."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud_service.auth import Caller
from cloud_service.limits import MAX_IDLE_CALLERS, CallerLimits
from cloud_service.scheduler.estimates import Demand, Pace

ALICE, BOB = Caller("alice"), Caller("bob")


def test_concurrent_generations_are_counted_by_caller():
    limits = CallerLimits(2, None)
    assert limits.admit(ALICE, 0) is None
    assert limits.admit(ALICE, 0) is None
    reached = limits.admit(ALICE, 0)
    assert reached is not None
    assert reached.retry_after_s is None
    assert limits.admit(BOB, 0) is None
    limits.release(ALICE)
    assert limits.admit(ALICE, 0) is None
    assert (limits.running(ALICE), limits.running(BOB), limits.running(Caller("eve"))) == (2, 1, 0)


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 20), st.lists(st.floats(0, 30), max_size=80))
def test_no_minute_holds_more_starts_than_two_allowances_and_a_wait_that_was_named_is_enough(per_minute, pauses):
    limits = CallerLimits(1000, per_minute)
    now, starts = 0.0, []
    for pause in pauses:
        now += pause
        reached = limits.admit(ALICE, now)
        if reached is None:
            starts.append(now)
            continue
        # A full bucket and what flows into it while it is emptied.
        assert sum(start > now - 60 for start in starts) >= per_minute / 2
        assert 0 < reached.retry_after_s <= 60 / per_minute
        now += reached.retry_after_s + 1e-6
        assert limits.admit(ALICE, now) is None
        starts.append(now)
    for start in starts:
        assert sum(start <= other < start + 60 for other in starts) <= 2 * per_minute


def test_callers_who_are_long_gone_are_forgotten():
    limits = CallerLimits(1, None)
    for number in range(MAX_IDLE_CALLERS + 50):
        caller = Caller(str(number))
        assert limits.admit(caller, number) is None
        limits.release(caller)
    assert len(limits._accounts) <= MAX_IDLE_CALLERS + 1


def measured(prefill_s: float = 0.001, decode_s: float = 0.01) -> Pace:
    pace = Pace()
    pace.observe(prefill_s * 100, 100, 0)
    pace.observe(decode_s, 0, 3)
    return pace


def test_a_pace_is_learnt_from_passes_of_either_kind_and_mixed():
    pace = measured()
    assert (pace.prefill_s, pace.decode_s) == pytest.approx((0.001, 0.01))
    # 100 prompt tokens beside some decoding: what decoding alone takes is not counted for them.
    pace.observe(0.11, 100, 4)
    assert (pace.prefill_s, pace.decode_s) == pytest.approx((0.001, 0.01))
    for _ in range(50):
        pace.observe(0.2, 100, 0)
    assert pace.prefill_s == pytest.approx(0.002, rel=0.01)


def test_a_first_token_waits_for_its_own_prompt_and_for_its_turn():
    pace = measured()
    assert pace.until_first_token(200, []) == pytest.approx(0.2)
    assert pace.until_first_token(200, [Demand(1000, 5), Demand(50, 5), Demand(0, 99)]) == pytest.approx(0.45)


def test_a_place_is_free_when_the_first_of_those_before_is_done():
    pace = measured()
    seated = [Demand(0, 100), Demand(0, 40)]
    assert pace.until_free_place(3, seated, []) == 0
    assert pace.until_free_place(2, seated, []) == pytest.approx(0.4)
    # One waits already: it takes the place that is free at 0.4 s, so the other one, free at 1 s, is the next.
    assert pace.until_free_place(2, seated, [Demand(100, 80)]) == pytest.approx(1.0)
    assert pace.until_free_place(2, seated, [Demand(100, 20)]) == pytest.approx(0.7)


def test_before_anything_was_measured_no_wait_is_foreseen():
    assert Pace().until_free_place(1, [Demand(100, 100)], []) == 0
