"""Room for generations, and what past ones leave behind for prompts that begin alike."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from cloud_service.scheduler.seats import Seat, Seats
from model_runtime.core import Chunk, Logits
from model_runtime.errors import UnsupportedError
from model_runtime.testing import ScriptedEngine
from tests.cloud_service.cell_engine import CellEngine

SYSTEM = list(range(20))


def feed(engine: ScriptedEngine, seat: Seat, tokens: list[int]) -> None:
    engine.forward([Chunk(seat.sequence, tokens[seat.cached :], Logits.NONE)])


def used(seats: Seats, engine: ScriptedEngine, tokens: list[int], scope: str = "", reserve: int = 60) -> Seat:
    """A generation that has come and gone."""
    seat = seats.take(tokens[:-1], scope, reserve=reserve)
    assert seat is not None
    feed(engine, seat, tokens)
    seats.leave(seat, tokens)
    return seat


def test_a_prompt_that_begins_like_a_past_one_finds_that_beginning() -> None:
    engine = CellEngine(200)
    seats = Seats(engine, 200, keeps=True)
    assert used(seats, engine, [*SYSTEM, 30, 31]).cached == 0
    assert used(seats, engine, [*SYSTEM, 40, 41]).cached == len(SYSTEM)
    # A conversation's next turn: all of the first one, and its answer.
    assert used(seats, engine, [*SYSTEM, 30, 31, 32, 33]).cached == len(SYSTEM) + 2
    assert engine.used == seats.kept_tokens == len(SYSTEM) + 2 + 4


def test_beginnings_too_short_to_matter_and_those_of_another_scope_are_not_found() -> None:
    engine = ScriptedEngine()
    seats = Seats(engine, 1000, keeps=True)
    used(seats, engine, [*SYSTEM, 30], "alice")
    assert used(seats, engine, [*SYSTEM, 30], "bob").cached == 0
    assert used(seats, engine, [*SYSTEM[:10], *SYSTEM], "alice").cached == 0
    assert seats.cached([*SYSTEM, 30], "alice") == len(SYSTEM) + 1
    assert seats.cached([*SYSTEM, 30], "carol") == 0


def test_the_end_of_a_turn_replaces_what_it_began_with() -> None:
    engine = ScriptedEngine()
    seats = Seats(engine, 1000, keeps=True)
    for length in range(20, 40, 5):
        used(seats, engine, list(range(length)))
    assert seats.kept_sequences == 1
    assert seats.kept_tokens == 35


def test_the_same_prompt_again_is_kept_once() -> None:
    engine = ScriptedEngine()
    seats = Seats(engine, 1000, keeps=True)
    for _ in range(3):
        used(seats, engine, [*SYSTEM, 30])
    assert seats.kept_sequences == 1


def test_what_was_of_use_longest_ago_makes_room_first() -> None:
    engine = CellEngine(120)
    seats = Seats(engine, 120, keeps=True)
    first, second = list(range(100, 130)), list(range(200, 230))
    used(seats, engine, first, reserve=40)
    used(seats, engine, second, reserve=40)
    seat = seats.take(first, "", reserve=40)
    assert seat is not None
    seats.leave(seat, first)
    assert seats.take(list(range(16)), "", reserve=80) is not None
    assert seats.cached(first, "") == 30
    assert seats.cached(second, "") == 0


def test_what_a_running_generation_was_forked_from_stays() -> None:
    engine = CellEngine(100)
    seats = Seats(engine, 100, keeps=True)
    used(seats, engine, [*SYSTEM, 30])
    running = seats.take([*SYSTEM, 40], "", reserve=60)
    assert running is not None
    assert seats.take(list(range(100, 130)), "", reserve=60) is None
    assert seats.cached(SYSTEM, "") == len(SYSTEM)
    seats.leave(running, [*SYSTEM, 40])
    assert seats.take(list(range(100, 130)), "", reserve=100) is not None
    assert seats.cached(SYSTEM, "") == 0


def test_where_there_is_no_room_for_both_the_kept_sequence_itself_goes_on() -> None:
    engine = CellEngine(50, max_sequences=1)
    seats = Seats(engine, 50, keeps=True)
    used(seats, engine, [*SYSTEM, *range(30, 50)], reserve=50)
    seat = seats.take([*SYSTEM, 60], "", reserve=50)
    assert seat is not None
    assert seat.cached == len(SYSTEM)
    assert engine.length(seat.sequence) == len(SYSTEM)
    assert seats.kept_sequences == 0


def test_a_reservation_grows_as_far_as_there_is_room_and_past_generations_make_some() -> None:
    engine = CellEngine(100)
    seats = Seats(engine, 100, keeps=True)
    used(seats, engine, SYSTEM, reserve=20)
    one, two = seats.take([1], "", reserve=30), seats.take([2], "", reserve=30)
    assert one is not None
    assert two is not None
    assert seats.grow(one, 50) == 50
    assert seats.kept_sequences == 1
    assert seats.grow(one, 90) == 70
    assert seats.kept_sequences == 0
    assert seats.grow(two, 31) == 30
    assert seats.grow(two, 5) == 30


class OneWay(ScriptedEngine):
    """A model whose memory cannot go back, as recurrent ones cannot."""

    def truncate(self, sequence: int, length: int) -> None:
        if length < self.length(sequence):
            raise UnsupportedError("cannot go back")


def test_where_memory_cannot_go_back_only_whole_pasts_are_found() -> None:
    engine = OneWay()
    seats = Seats(engine, 1000, keeps=True)
    used(seats, engine, [*SYSTEM, 30])
    assert used(seats, engine, [*SYSTEM, 40]).cached == 0
    assert used(seats, engine, [*SYSTEM, 30, 50, 51]).cached == len(SYSTEM) + 1


@pytest.mark.parametrize("keeps", [True, False])
def test_nothing_is_left_open_but_what_is_kept(keeps: bool) -> None:
    engine = CellEngine(200)
    seats = Seats(engine, 200, keeps=keeps)
    for last in range(30, 40):
        used(seats, engine, [*SYSTEM, last])
    assert len(engine.cells) == seats.kept_sequences
    assert engine.used == seats.kept_tokens
    assert bool(seats.kept_sequences) == keeps


@dataclass
class Guest:
    seat: Seat
    tokens: list[int]


class SeatsMachine(RuleBasedStateMachine):
    """Prompts of few different tokens, so that many begin alike; an engine that refuses what finds no cells."""

    def __init__(self) -> None:
        super().__init__()
        self.engine = CellEngine(160, max_sequences=5)
        self.seats = Seats(self.engine, 160, keeps=True)
        self.guests: list[Guest] = []

    @rule(
        family=st.integers(0, 2),
        shared=st.integers(0, 60),
        rest=st.lists(st.integers(0, 3), min_size=1, max_size=12),
        grant=st.integers(1, 30),
    )
    def come(self, family: int, shared: int, rest: list[int], grant: int) -> None:
        tokens = [family * 10 + 100] * shared + rest
        seat = self.seats.take(tokens[:-1], "", reserve=len(tokens) + grant)
        if seat is not None:
            assert seat.cached < len(tokens)
            self.guests.append(Guest(seat, tokens))

    @rule(data=st.data(), count=st.integers(1, 40))
    def run(self, data: st.DataObject, count: int) -> None:
        """Some take part in a pass; none of them can find the cache full."""
        chunks = []
        for guest in self.guests:
            length = self.engine.length(guest.seat.sequence)
            guest.tokens += [7] * max(0, length + count - len(guest.tokens))
            del guest.tokens[max(guest.seat.reserved, length) :]
            new = guest.tokens[length : length + count]
            if new and data.draw(st.booleans()):
                chunks.append(Chunk(guest.seat.sequence, new, Logits.NONE))
        if chunks:
            self.engine.forward(chunks)

    @rule(more=st.integers(1, 60))
    def grow(self, more: int) -> None:
        if self.guests:
            seat = self.guests[0].seat
            before = seat.reserved
            assert before <= self.seats.grow(seat, before + more) <= before + more

    @rule(which=st.integers(0, 4))
    def leave(self, which: int) -> None:
        if which < len(self.guests):
            guest = self.guests.pop(which)
            self.seats.leave(guest.seat, guest.tokens[: self.engine.length(guest.seat.sequence)])

    @invariant()
    def nothing_is_promised_twice(self) -> None:
        assert self.seats.reserved_tokens + self.seats.kept_tokens <= self.seats.capacity
        assert self.engine.used <= self.seats.reserved_tokens + self.seats.kept_tokens
        assert len(self.engine.cells) == len(self.guests) + self.seats.kept_sequences

    @invariant()
    def sequences_hold_what_they_should(self) -> None:
        for guest in self.guests:
            length = self.engine.length(guest.seat.sequence)
            assert list(self.engine._table.get(guest.seat.sequence).tokens) == guest.tokens[:length]

    def teardown(self) -> None:
        while self.guests:
            self.leave(0)
        assert self.engine.used == self.seats.kept_tokens
        assert self.seats.reserved_tokens == 0
        # Nobody uses anything any more: all of it can make room.
        assert self.seats.take([1], "", reserve=self.seats.capacity) is not None
        assert self.seats.kept_sequences == 0


TestSeats = SeatsMachine.TestCase
TestSeats.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)
