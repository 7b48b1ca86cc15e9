"""How many instances prefill and how many decode."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud_service.pool.phases import ENOUGH, Phases
from cloud_service.pool.roles import Change, Phase, Rebalancer, Split, assign, best_split, can_serve

phases = st.builds(Phase, batch=st.floats(1, 64), seconds=st.floats(0.001, 100.0))


def after(split: Split, change: Change) -> Split:
    step = 1 if change.after == "prefill" else -1
    return Split(split.prefill + step, split.decode - step)


def settle(split: Split, prefill: Phase, decode: Phase, rebalancer: Rebalancer) -> list[Split]:
    """All splits until nothing is changed any more, with the same measurements all the time."""
    now, seen = 0.0, [split]
    quiet = 0.0
    while quiet <= 3 * rebalancer.hold:
        change = rebalancer.look(seen[-1], prefill, decode, now)
        quiet = quiet + 1.0 if change is None else 0.0
        if change is not None:
            seen.append(after(seen[-1], change))
        now += 1.0
    return seen


@given(st.integers(2, 12), phases, phases)
def test_the_best_split_is_the_best(instances: int, prefill: Phase, decode: Phase):
    best = best_split(instances, prefill, decode)
    assert best.prefill + best.decode == instances
    others = (Split(count, instances - count) for count in range(1, instances))
    assert best.capacity(prefill, decode) == max(split.capacity(prefill, decode) for split in others)


@given(st.integers(2, 12), phases, phases)
def test_at_the_best_split_both_phases_are_balanced_to_within_an_instance(instances, prefill, decode):
    """n_p·b_p/T_p ≈ n_d·b_d/T_d: one instance more on either side would tip the balance."""
    split = best_split(instances, prefill, decode)
    ours, theirs = split.prefill * prefill.rate, split.decode * decode.rate
    if ours < theirs and split.decode > 1:
        assert (split.decode - 1) * decode.rate <= ours + prefill.rate
    if theirs < ours and split.prefill > 1:
        assert (split.prefill - 1) * prefill.rate <= theirs + decode.rate


@given(st.integers(1, 8), st.integers(1, 8), phases, phases)
def test_it_settles_near_the_best_never_goes_back_and_loses_nobody(n_p, n_d, prefill, decode):
    rebalancer = Rebalancer(margin=0.25, hold=5.0)
    seen = settle(Split(n_p, n_d), prefill, decode, rebalancer)
    assert len(set(seen)) == len(seen), "no split comes back"
    assert all(split.prefill >= 1 and split.decode >= 1 for split in seen)
    assert {split.prefill + split.decode for split in seen} == {n_p + n_d}
    capacities = [split.capacity(prefill, decode) for split in seen]
    assert all(later >= sooner for sooner, later in itertools.pairwise(capacities))
    best = best_split(n_p + n_d, prefill, decode).capacity(prefill, decode)
    assert capacities[-1] * 1.25 >= best * 0.999


def test_a_gain_has_to_last():
    rebalancer = Rebalancer(margin=0.25, hold=10.0)
    slow, fast = Phase(1, 1.0), Phase(8, 1.0)
    assert rebalancer.look(Split(1, 3), slow, fast, 0.0) is None
    assert rebalancer.look(Split(1, 3), slow, fast, 9.9) is None
    assert rebalancer.look(Split(1, 3), slow, fast, 10.0) == Change("decode", "prefill")
    assert rebalancer.look(Split(2, 2), slow, fast, 10.1) is None, "the next one has to last, too"


def test_a_gain_that_comes_and_goes_changes_nothing():
    rebalancer = Rebalancer(margin=0.25, hold=10.0)
    slow, fast, even = Phase(1, 1.0), Phase(8, 1.0), Phase(1, 1.0)
    for now in range(0, 100, 2):
        decode = fast if now % 8 else even
        assert rebalancer.look(Split(2, 2), slow, decode, float(now)) is None


@pytest.mark.parametrize(
    ("instances", "counts", "expected"),
    [
        (3, {"prefill": 1, "decode": 2}, ["prefill", "decode", "decode"]),
        (3, {"prefill": 1}, ["mixed", "mixed", "prefill"]),
        (2, {}, ["mixed", "mixed"]),
        (1, {"mixed": 1}, ["mixed"]),
    ],
)
def test_roles_by_count(instances, counts, expected):
    assert assign(instances, counts) == expected
    assert can_serve(expected)


@pytest.mark.parametrize(
    ("instances", "counts", "words"),
    [
        (2, {"prefill": 1, "decode": 2}, "3 instances have a role, and there are 2"),
        (2, {"prefill": 2}, "go together"),
        (1, {"decode": 1}, "go together"),
        (3, {"prefill": -1}, "at least 0"),
    ],
)
def test_roles_that_cannot_be(instances, counts, words):
    with pytest.raises(ValueError, match=words):
        assign(instances, counts)


def test_little_measured_is_nothing_measured():
    measured = Phases(places=4)
    for _ in range(ENOUGH):
        assert measured.measured is None
        measured.prefilled(0.5)
        measured.decoded(2.0)
    assert measured.measured == (Phase(1, pytest.approx(0.5)), Phase(4, pytest.approx(2.0)))
