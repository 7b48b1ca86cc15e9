"""When a dead process is replaced, and when no more."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cloud_service.pool.restarts import RestartPolicy, Restarts

POLICY = RestartPolicy(limit=4, window=100.0, first_delay=1.0, longest_delay=3.0, burst=10.0)


def test_the_first_is_replaced_soon_and_others_ever_later_up_to_a_limit():
    restarts = Restarts(POLICY)
    assert [restarts.crashed(now) for now in (0.0, 1.0, 2.0, 3.0)] == [1.0, 2.0, 3.0, None]


def test_a_crash_now_and_then_costs_no_more_than_the_first_one():
    restarts = Restarts(POLICY)
    assert [restarts.crashed(now) for now in (0.0, 40.0, 80.0, 120.0, 160.0)] == [1.0] * 5


@given(st.lists(st.floats(0.0, 60.0), max_size=40))
def test_never_a_restart_loop(pauses: list[float]):
    restarts, now = Restarts(POLICY), 0.0
    crashes: list[float] = []
    for pause in pauses:
        now += pause
        crashes.append(now)
        delay = restarts.crashed(now)
        recent = [crash for crash in crashes if crash > now - POLICY.window]
        assert (delay is None) == (len(recent) >= POLICY.limit)
        if delay is None:
            return
        assert POLICY.first_delay <= delay <= POLICY.longest_delay
