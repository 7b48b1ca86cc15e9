"""Whom a generation is offered to; which prompts belong together; how long to wait before trying again."""

from __future__ import annotations

import dataclasses

from hypothesis import given
from hypothesis import strategies as st

from cloud_service.pool.families import BLOCK, Remembered, keys_of
from cloud_service.pool.placement import RUNNING, Candidate, to_begin, to_take_over
from cloud_service.pool.retry import Departures, retry_after
from cloud_service.pool.roles import ROLES

counts = st.integers(0, 500)
candidates = st.lists(
    st.builds(Candidate, st.integers(0, 99), st.sampled_from(ROLES), counts, counts, counts),
    unique_by=lambda candidate: candidate.instance,
    max_size=8,
)


@given(candidates)
def test_everyone_is_asked_once_who_begins_answers(given):
    asked = to_begin(given)
    fitting = [candidate for candidate in given if candidate.role != "decode"]
    assert sorted(asked, key=id) == sorted(fitting or given, key=id)


@given(candidates, counts)
def test_to_know_more_of_a_prompt_never_puts_anyone_back(given, more):
    for candidate in to_begin(given):
        place = to_begin(given).index(candidate)
        better = dataclasses.replace(candidate, known=candidate.known + more)
        others = [better if each is candidate else each for each in given]
        assert to_begin(others).index(better) <= place


def test_a_beginning_that_is_known_is_worth_some_company_but_not_any():
    idle = Candidate(0, "mixed")
    knows = Candidate(1, "mixed", running=3, known=4 * RUNNING)
    assert [each.instance for each in to_begin([idle, knows])] == [1, 0]
    busy = dataclasses.replace(knows, running=5)
    assert [each.instance for each in to_begin([idle, busy])] == [0, 1]


@given(candidates)
def test_who_decodes_takes_over_first_and_who_prefills_never(given):
    asked = to_take_over(given)
    assert {each.role for each in asked} <= {"decode", "mixed"}
    roles = [each.role for each in asked]
    assert roles == sorted(roles, key=lambda role: role != "decode")


tokens = st.lists(st.integers(0, 3), min_size=0, max_size=4 * BLOCK)


@given(tokens, tokens, tokens)
def test_as_much_is_known_as_two_prompts_begin_alike_in_whole_blocks(beginning, one, other):
    memory = Remembered()
    memory.note(keys_of(beginning + one, "a"))
    first, second = beginning + one, beginning + other
    alike = next((at for at, pair in enumerate(zip(first, second, strict=False)) if pair[0] != pair[1]), None)
    shared = min(len(first), len(second)) if alike is None else alike
    assert memory.tokens(keys_of(second, "a")) == shared // BLOCK * BLOCK


def test_callers_share_nothing():
    memory = Remembered()
    memory.note(keys_of(range(100), "alice"))
    assert memory.tokens(keys_of(range(100), "bob")) == 0
    assert memory.tokens(keys_of(range(100), "alice")) == 96


def test_a_declared_family_is_one_before_its_prompts_are_alike():
    memory = Remembered()
    memory.note(keys_of([1] * 64, "", "support"))
    assert memory.tokens(keys_of([2] * 64, "", "support")) == BLOCK
    assert memory.tokens(keys_of([2] * 64, "")) == 0
    assert memory.tokens(keys_of([1] * 64, "", "sales")) == 64, "its tokens tell, whatever it is called"


def test_the_latest_prompts_are_remembered_by_their_beginnings():
    memory = Remembered(most=3)
    memory.note(keys_of([1] * 64, ""))
    memory.note(keys_of([2] * 64, ""))
    assert len(memory) == 3
    assert memory.tokens(keys_of([2] * 64, "")) == 64
    assert memory.tokens(keys_of([1] * 64, "")) == 32
    memory.forget()
    assert memory.tokens(keys_of([2] * 64, "")) == 0


def test_the_wait_is_that_of_the_soonest_place_behind_those_that_wait():
    assert retry_after([0.5, None, 2.0], ahead=0, interval=None) == 0.5
    assert retry_after([0.5], ahead=3, interval=0.25) == 1.0
    assert retry_after([], ahead=3, interval=None) is None
    assert retry_after([None], ahead=1, interval=0.5) == 1.0


def test_departures_tell_how_often_a_place_becomes_free():
    departures = Departures(oldest=10.0)
    assert departures.interval(0.0) is None
    for now in (0.0, 1.0, 2.0, 3.0):
        departures.note(now)
    assert departures.interval(4.0) == 1.0
    assert departures.interval(8.0) == 2.0, "a pool that stands still does not go on as it did"
    assert departures.interval(30.0) is None
