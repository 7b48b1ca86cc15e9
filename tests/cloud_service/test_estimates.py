"""What passes will take, from what they took, and when there will be room."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud_service.scheduler.estimates import Demand, Pace, Room


def measured(base_s: float = 0.010, decode_s: float = 0.002, prefill_s: float = 0.001) -> Pace:
    pace = Pace()
    for decoding in (1, 4, 2, 8, 3, 1, 6, 5) * 3:
        pace.observe(base_s + decoding * decode_s, 0, decoding)
    pace.observe(100 * prefill_s, 100, 0)
    return pace


def test_what_one_more_in_a_pass_costs_shows_where_passes_differ():
    costs = measured().costs
    assert (costs.base_s, costs.decode_s, costs.prefill_s) == pytest.approx((0.010, 0.002, 0.001))


def test_where_passes_are_all_alike_nobody_knows_what_one_more_costs():
    pace = Pace()
    for _ in range(5):
        pace.observe(0.030, 0, 4)
    assert (pace.costs.base_s, pace.costs.decode_s) == pytest.approx((0.030, 0.0))


def test_of_a_mixed_pass_prefill_is_what_decoding_alone_would_not_have_taken():
    pace = measured()
    for _ in range(50):
        pace.observe(0.018 + 0.300, 100, 4)
    assert pace.costs.prefill_s == pytest.approx(0.003, rel=1e-3)


@given(st.lists(st.tuples(st.floats(1e-6, 10), st.integers(0, 512), st.integers(0, 64)), max_size=60))
def test_costs_are_never_negative_whatever_was_measured(passes):
    pace = Pace()
    for seconds, prefill, decode in passes:
        pace.observe(seconds, prefill, decode)
    costs = pace.costs
    assert min(costs.base_s, costs.decode_s, costs.prefill_s) >= 0
    assert math.isfinite(costs.seconds(512, 64))


def test_a_first_token_waits_for_the_prompts_that_are_due_earlier():
    others = [Demand(100, 1, due=1.0), Demand(200, 1, due=3.0)]
    assert measured().until_first_token(Demand(50, 1, due=2.0), others) == pytest.approx(0.150)


def test_there_is_room_once_enough_of_it_is_free():
    pace, room = measured(), Room(places=4, kv=1000)
    seated = [Demand(0, 10, kv=400), Demand(0, 50, kv=500)]
    # A pass of two takes 14 ms.
    assert pace.until_seated(Demand(10, 10, kv=100), room, seated, []) == 0
    assert pace.until_seated(Demand(10, 10, kv=450), room, seated, []) == pytest.approx(0.140)
    assert pace.until_seated(Demand(10, 10, kv=900), room, seated, []) == pytest.approx(0.700)
    assert pace.until_seated(Demand(10, 10, kv=1001), room, seated, []) == math.inf


def test_who_waits_and_is_due_earlier_is_seated_before():
    pace, room = measured(), Room(places=1, kv=1000)
    seated, own = [Demand(0, 10)], Demand(10, 10, due=5.0)
    assert pace.until_seated(own, room, seated, [Demand(100, 5, due=9.0)]) == pytest.approx(0.120)
    assert pace.until_seated(own, room, seated, [Demand(100, 5, due=4.0)]) == pytest.approx(0.120 + 0.100 + 0.060)


def test_before_anything_was_measured_no_wait_is_foreseen():
    assert Pace().until_seated(Demand(10, 10), Room(places=1, kv=1000), [Demand(100, 100)], []) == 0
