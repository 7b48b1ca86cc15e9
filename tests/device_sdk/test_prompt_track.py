"""The prefill cursor: a refinement changes what lies ahead of it and nothing else."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from device_sdk.generation.prompt import PromptTrack
from device_sdk.generation.spans import outside, size, union, within

SPANS = st.lists(st.tuples(st.integers(-5, 70), st.integers(-5, 70)), max_size=6)


def positions(spans, length: int = 70) -> set[int]:
    return {position for start, end in spans for position in range(max(start, 0), min(end, length))}


@given(SPANS, SPANS, st.integers(0, 60))
def test_spans_are_sets_of_positions(a, b, length: int) -> None:
    both = union(a, b)
    assert all(start < end for start, end in both)
    assert all(before[1] < after[0] for before, after in pairwise(both))
    inside = within(both, 0, length)
    assert positions(inside) == positions(a, length) | positions(b, length)
    assert size(inside) == len(positions(inside))
    assert positions(outside(inside, length)) == set(range(length)) - positions(inside)


class Cursor(RuleBasedStateMachine):
    """Against the definition, on sets of positions."""

    @initialize(length=st.integers(1, 60), protected=SPANS)
    def begin(self, length: int, protected) -> None:
        self.length = length
        self.protected = positions(protected, length) | {length - 1}
        self.prompt = PromptTrack(range(1_000, 1_000 + length), protected)
        self.taken: list[int] = []
        self.ahead = set(range(length))

    @rule(count=st.integers(1, 30))
    def take(self, count: int) -> None:
        expected = sorted(self.ahead)[:count]
        assert self.prompt.take(count) == tuple(1_000 + position for position in expected)
        self.taken += expected
        self.ahead -= set(expected)

    @rule(keep=SPANS)
    def refine(self, keep) -> None:
        cursor = self.taken[-1] + 1 if self.taken else 0
        self.prompt.refine(keep)
        self.ahead = {p for p in positions(keep, self.length) | self.protected if p >= cursor}

    @invariant()
    def agrees(self) -> None:
        if hasattr(self, "prompt"):
            assert self.taken == sorted(set(self.taken))
            assert positions(self.prompt.taken) == set(self.taken)
            assert (self.prompt.fed, self.prompt.left) == (len(self.taken), len(self.ahead))
            assert self.prompt.done == (not self.ahead)
            assert self.prompt.protected_left == len(self.protected & self.ahead)
            assert self.protected <= set(self.taken) | self.ahead
            assert self.prompt.kept_share == (len(self.taken) + len(self.ahead)) / self.length


TestCursor = Cursor.TestCase
TestCursor.settings = settings(max_examples=40, stateful_step_count=15, deadline=None)
