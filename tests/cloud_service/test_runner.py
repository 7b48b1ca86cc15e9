"""The scheduler from outside: another thread, a real clock, and callbacks on a thread of the caller's."""

from __future__ import annotations

import queue
import threading
import time

import pytest

from cloud_service.metrics import Occupancy
from cloud_service.scheduler.jobs import Emitted, Ended, Event, Failed, Job, Refusal, Ticket
from cloud_service.scheduler.mailbox import Drain, Mailbox, Reported
from cloud_service.scheduler.policy import PassBudget
from cloud_service.scheduler.runner import Runner
from cloud_service.scheduler.slack import Report
from model_runtime.errors import EngineFailedError
from model_runtime.sampling import SamplingParams
from model_runtime.testing import Faults, ScriptedEngine

PATIENCE = 30


@pytest.fixture
def start():
    """`start(engine, places=…, queue_depth=…)`: a runner whose listeners are called on its own thread."""
    runners: list[Runner] = []

    def make(
        engine: ScriptedEngine,
        *,
        places: int = 2,
        queue_depth: int = 2,
        failed=lambda cause: None,
        clock=time.monotonic,
    ) -> Runner:
        runner = Runner(
            engine,
            budget=PassBudget(64),
            places=places,
            queue_depth=queue_depth,
            post=lambda call: call(),
            observe=lambda seconds, prefill, decode: None,
            failed=failed,
            clock=clock,
        )
        runners.append(runner)
        return runner

    yield make
    for runner in runners:
        runner.close(PATIENCE)


def hanging() -> ScriptedEngine:
    """An engine whose first pass ends by cancellation only."""
    return ScriptedEngine(faults=Faults(hang_at=0), answer_length=100_000)


def until_hanging(engine: ScriptedEngine) -> None:
    deadline = time.monotonic() + PATIENCE
    while not engine.passes:
        assert time.monotonic() < deadline
        time.sleep(0.001)


def job(grant: int = 3, **options) -> Job:
    return Job("job", (1, 2, 3), (), grant, SamplingParams(), **options)


def ends(events: queue.Queue[Event]) -> Event:
    while isinstance(event := events.get(timeout=PATIENCE), Emitted):
        pass
    return event


def test_a_job_from_ticket_to_end(start):
    runner = start(ScriptedEngine(answer_length=100_000))
    events: queue.Queue[Event] = queue.Queue()
    ticket = runner.submit(job(), events.put)
    assert isinstance(ticket, Ticket)
    assert [len(events.get(timeout=PATIENCE).ids) for _ in range(3)] == [1, 1, 1]
    assert isinstance(events.get(timeout=PATIENCE), Ended)
    assert runner.occupancy() == Occupancy()


def test_more_than_places_and_queue_is_refused_and_a_stop_makes_room(start):
    engine = hanging()
    runner = start(engine, places=1, queue_depth=1)
    first, second = queue.Queue(), queue.Queue()
    ticket = runner.submit(job(), first.put)
    until_hanging(engine)
    assert isinstance(runner.submit(job(), second.put), Ticket)
    refusal = runner.submit(job(), second.put)
    assert isinstance(refusal, Refusal)
    # Nothing was measured yet, so nobody knows when there will be room.
    assert (refusal.reason, refusal.retry_after_ms) == ("busy", None)
    runner.stop(ticket.key)
    assert ends(first).reason == "stopped"
    assert ends(second).reason == "grant"


def test_a_pass_that_others_need_runs_to_its_end(start):
    passing, go_on = threading.Semaphore(0), threading.Semaphore(0)

    def wait(seconds, cancellation) -> bool:
        passing.release()
        assert go_on.acquire(timeout=PATIENCE)
        return cancellation.cancelled

    engine = ScriptedEngine(answer_length=100_000, delay=lambda chunks: 1.0, sleep=wait)
    runner = start(engine)
    first, second = queue.Queue(), queue.Queue()
    ticket = runner.submit(job(50), first.put)
    assert passing.acquire(timeout=PATIENCE)
    runner.submit(job(2), second.put)
    go_on.release()
    # The second pass is of both.
    assert passing.acquire(timeout=PATIENCE)
    assert len(engine.passes[1]) == 2
    runner.stop(ticket.key)
    go_on.release(2)
    assert ends(first).reason == "stopped"
    assert ends(second).reason == "grant"
    # It was not cancelled and done again.
    assert [len(chunks) for chunks in engine.passes] == [1, 2, 1]


def test_an_abandoned_job_is_freed_without_a_word(start):
    engine = hanging()
    runner = start(engine, places=1)
    first, second = queue.Queue(), queue.Queue()
    ticket = runner.submit(job(), first.put)
    until_hanging(engine)
    runner.abandon(ticket.key)
    runner.submit(job(), second.put)
    assert ends(second).reason == "grant"
    assert first.empty()


def test_a_broken_engine_is_reported_once_and_refuses_from_then_on(start):
    causes: queue.Queue[str] = queue.Queue()
    engine = ScriptedEngine(answer_length=100_000, faults=Faults(fail_at=1))
    runner = start(engine, failed=causes.put)
    events: queue.Queue[Event] = queue.Queue()
    runner.submit(job(), events.put)
    end = ends(events)
    assert isinstance(end, Failed)
    assert (end.code, end.retriable) == ("engine", True)
    assert "injected" in causes.get(timeout=PATIENCE)
    refusal = runner.submit(job(), events.put)
    assert refusal.reason == "failed"
    runner.close(PATIENCE)
    assert causes.empty()
    with pytest.raises(EngineFailedError):
        engine.open()


def test_a_drain_is_over_when_nothing_is_left(start):
    runner = start(ScriptedEngine(answer_length=100_000))
    events: queue.Queue[Event] = queue.Queue()
    runner.submit(job(50, linger=PATIENCE), events.put)
    done = runner.drain()
    refusal = runner.submit(job(), events.put)
    assert refusal.reason == "draining"
    done.result(timeout=PATIENCE)
    assert ends(events).reason == "grant"
    assert runner.drain().done()


def test_an_idle_runner_is_drained_at_once(start):
    assert start(ScriptedEngine()).drain().done()


def test_close_ends_what_hangs(start):
    engine = hanging()
    runner = start(engine)
    events: queue.Queue[Event] = queue.Queue()
    runner.submit(job(), events.put)
    runner.close(PATIENCE)
    end = ends(events)
    assert isinstance(end, Failed)
    assert end.retriable
    with pytest.raises(EngineFailedError):
        engine.open()


def test_a_listener_that_fails_costs_no_other_listener_its_events(start, caplog):
    runner = start(ScriptedEngine(answer_length=100_000))

    def bad(event: Event) -> None:
        raise ZeroDivisionError

    events: queue.Queue[Event] = queue.Queue()
    runner.submit(job(20), bad)
    runner.submit(job(20), events.put)
    assert ends(events).reason == "grant"
    assert "a listener failed" in caplog.text


class Gated:
    """A clock that only passes move on, each of 10 ms and only when it is let go."""

    def __init__(self) -> None:
        self.now = 0.0
        self._allowed, self._done = threading.Semaphore(0), threading.Semaphore(0)

    def engine(self) -> ScriptedEngine:
        return ScriptedEngine(answer_length=100_000, delay=lambda chunks: 0.010, sleep=self.sleep)

    def sleep(self, seconds: float, cancellation) -> bool:
        while not self._allowed.acquire(timeout=0.02):
            if cancellation.cancelled:
                return True
        self.now += seconds
        self._done.release()
        return False

    def until(self, time: float) -> None:
        """Let passes go until then."""
        while self.now < time:
            self._allowed.release()
            assert self._done.acquire(timeout=PATIENCE)


def test_after_what_a_refusal_says_there_is_room_and_before_there_is_none(start):
    gate = Gated()
    runner = start(gate.engine(), places=1, queue_depth=1, clock=lambda: gate.now)
    heard = [queue.Queue() for _ in range(4)]
    runner.submit(job(30), heard[0].put)
    gate.until(0.05)
    assert isinstance(runner.submit(job(30), heard[1].put), Ticket)
    refusal = runner.submit(job(1), heard[2].put)
    assert refusal.reason == "busy"
    promised = refusal.retry_after_ms / 1000
    assert promised == pytest.approx(0.25, abs=0.02)
    gate.until(gate.now + promised - 0.04)
    assert isinstance(runner.submit(job(1), heard[2].put), Refusal)
    gate.until(gate.now + 0.07)
    assert isinstance(runner.submit(job(1), heard[3].put), Ticket)


def test_a_deadline_that_no_wait_would_help_is_refused_without_a_time(start):
    gate = Gated()
    runner = start(gate.engine(), places=1, queue_depth=4, clock=lambda: gate.now)
    heard: queue.Queue[Event] = queue.Queue()
    runner.submit(job(30), heard.put)
    gate.until(0.05)
    # Prefill was measured with three tokens in 10 ms.
    soon = runner.submit(job(1, deadline=gate.now + 0.1), heard.put)
    assert (soon.reason, soon.retry_after_ms) == ("deadline", pytest.approx(160, abs=20))
    never = runner.submit(job(1, deadline=gate.now + 0.005), heard.put)
    assert (never.reason, never.retry_after_ms) == ("deadline", None)


def test_of_what_a_device_says_again_and_again_only_the_last_word_waits_and_wakes_nobody():
    mailbox = Mailbox()
    for shown in range(100):
        mailbox.note(Reported(1, Report(0.0, shown, 0.05)))
    mailbox.note(Reported(2, Report(0.0, 7, 0.05)))
    mailbox.put(Drain())
    commands = mailbox.take(0)
    assert commands == [Drain(), Reported(1, Report(0.0, 99, 0.05)), Reported(2, Report(0.0, 7, 0.05))]
    assert mailbox.take(0) == []
