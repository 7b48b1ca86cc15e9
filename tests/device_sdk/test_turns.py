"""The engine's thread: nobody waits while others have more, and what is nobody's comes first."""

from __future__ import annotations

import threading

from hypothesis import given
from hypothesis import strategies as st

from device_sdk.turns import Ledger, Turns


@given(costs=st.lists(st.floats(0.01, 0.2), min_size=2, max_size=5), passes=st.integers(20, 60))
def test_the_engine_s_time_is_shared_evenly_whatever_a_pass_costs(costs: list[float], passes: int) -> None:
    """Each wants a pass at any time, the next one's a different length: nobody is ahead by more than a pass."""
    ledger, had = Ledger(), [0.0] * len(costs)
    for owner in range(len(costs)):
        ledger.enter(owner)
    for _ in range(passes):
        owner = ledger.next(list(range(len(costs))))
        ledger.used(owner, costs[owner])
        had[owner] += costs[owner]
    assert max(had) - min(had) <= max(costs) + 1e-9


def test_who_comes_late_gets_its_share_from_then_on() -> None:
    ledger, had = Ledger(), {"old": 0, "new": 0}
    ledger.enter("old")
    for _ in range(100):
        ledger.used("old", 0.1)
    ledger.enter("new")
    for _ in range(20):
        owner = ledger.next(["old", "new"])
        ledger.used(owner, 0.1)
        had[owner] += 1
    assert had == {"old": 10, "new": 10}


def test_plain_jobs_come_first_in_order_and_the_end_last() -> None:
    turns, done = Turns(), list[str]()
    turns.put(lambda: done.append("pass"), "owner")
    turns.put(lambda: done.append("dropped"), "gone")
    turns.put(lambda: done.append("load"))
    turns.put(lambda: done.append("close"))
    turns.put(None)
    turns.leave("gone")
    thread = threading.Thread(target=turns.run, args=(lambda job: job(),))
    thread.start()
    thread.join(5)
    assert not thread.is_alive()
    assert done == ["load", "close", "pass"]
