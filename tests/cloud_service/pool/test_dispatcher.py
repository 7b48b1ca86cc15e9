"""Whatever instances and clients do, in whatever order: every generation ends in one terminal event, says each token
once and in order, and leaves nothing behind."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, precondition, rule
from prometheus_client import CollectorRegistry

from cloud_service.metrics import Occupancy
from cloud_service.pool import frames
from cloud_service.pool.assignment import Assignment
from cloud_service.pool.dispatcher import RECOVERY, Dispatcher
from cloud_service.pool.instance import Instance, Start
from cloud_service.pool.metrics import PoolMetrics
from cloud_service.pool.phases import Phases
from cloud_service.pool.restarts import RestartPolicy
from cloud_service.pool.roles import Role, assign
from cloud_service.scheduler.jobs import Emitted, Ended, Event, Failed, Job, Refusal, Refused, Ticket
from cloud_service.scheduler.slack import DEFAULT_TARGETS
from model_runtime.sampling import SamplingParams
from model_runtime.testing import ScriptedTokenizer
from wire_protocol.messages import Usage

TOKENIZER = ScriptedTokenizer()
USAGE = Usage(1, 0, 1, 1.0, 2.0, 3.0)
PLACES = 2


@dataclass
class At:
    """A generation at an engine process that is not one."""

    job: Job
    grant: int
    given: int = 0
    away: bool = False
    #: It was told to leave: its place is free after the next pass.
    leaves: bool = False


class FakeProcess:
    """Says what an engine process would, one frame at a time and when it is asked to. The token at position n of an
    answer is n."""

    def __init__(self, instance: Instance, hear: Callable[[Instance, frames.FromEngine], None], shared: set[str]):
        self.instance, self.hear, self.shared = instance, hear, shared
        self.told: list[frames.ToEngine] = []
        self.here: dict[int, At] = {}
        instance._process = self

    def say(self, frame: frames.ToEngine) -> None:
        self.told.append(frame)

    def heed(self) -> None:
        if not self.told:
            return
        match self.told.pop(0):
            case frames.Offer(key, job, segment):
                if len(self.here) >= PLACES or (segment is not None and segment.name not in self.shared):
                    self.tell(frames.TurnedAway(key, Refusal("busy", "full", 100.0)))
                else:
                    self.here[key] = At(job, job.grant)
                    self.tell(frames.Took(key, Ticket(key, 0.0)))
            case frames.Extend(key, grant) if key in self.here:
                self.here[key].grant = max(grant, self.here[key].grant)
            case frames.Leave(key) if key in self.here:
                self.here[key].leaves = True
                self.shared.discard(self.name(key))
            case frames.Resume(key) if key in self.here:
                self.here[key].away = False
                self.shared.discard(self.name(key))
            case _:
                pass

    def work(self) -> None:
        for key, at in list(self.here.items()):
            if at.leaves:
                del self.here[key]
                self.tell(frames.Over(key, ended=Ended("stopped", USAGE)))
                continue
            if at.away:
                continue
            if at.given < at.grant:
                self.tell(frames.Gave(((key, (len(at.job.output) + at.given,)),)))
                at.given += 1
                if at.job.hands_over and at.given == 1 < at.grant:
                    at.away = True
                    self.shared.add(self.name(key))
                    self.tell(frames.Handed(key, frames.Segment(self.name(key), 1, 1), USAGE))
            else:
                del self.here[key]
                self.tell(frames.Over(key, ended=Ended("grant", USAGE)))

    def break_one(self) -> None:
        for key in list(self.here)[:1]:
            del self.here[key]
            self.shared.discard(self.name(key))
            self.tell(frames.Over(key, failed=Failed("engine", "broke", retriable=True)))

    def die(self) -> None:
        self.shared -= {self.name(key) for key in self.here}
        self.told.clear()
        self.here.clear()

    def tell(self, frame: frames.FromEngine) -> None:
        self.hear(self.instance, frame)

    def name(self, key: int) -> str:
        return f"{self.instance.number}/{key}"


@dataclass
class Timer:
    at: float
    callback: Callable[[], None] | None

    def cancel(self) -> None:
        self.callback = None


@dataclass
class Pool:
    """A dispatcher in virtual time."""

    roles: list[Role]
    queue_depth: int = 3
    now: float = 100.0
    timers: list[Timer] = field(default_factory=list)
    open: dict[int, Assignment] = field(default_factory=dict)
    heard: dict[int, list[Event]] = field(default_factory=dict)
    dropped: set[int] = field(default_factory=set)
    shared: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        start = Start((), frames.Load({}), RestartPolicy(), 1.0)
        self.instances = [Instance(n, role, start, None) for n, role in enumerate(self.roles)]  # type: ignore[arg-type]
        self.metrics = PoolMetrics(CollectorRegistry(), lambda: self.instances)
        self.dispatcher = Dispatcher(
            self.instances,
            self.metrics,
            Phases(PLACES),
            self.queue_depth,
            lambda assignment: self.open.pop(assignment.key) and None,
            self.later,
            lambda: self.now,
        )
        self.processes = [FakeProcess(each, self.dispatcher.hear, self.shared) for each in self.instances]
        for each in self.instances:
            each.phase = "ready"
        self.keys = itertools.count()

    def later(self, delay: float, callback: Callable[[], None]) -> Timer:
        self.timers.append(Timer(self.now + delay, callback))
        return self.timers[-1]

    def submit(self, grant: int, deadline: float | None = None, **options) -> Assignment:
        key = next(self.keys)
        until = None if deadline is None else self.now + deadline
        job = Job(str(key), (1, 2, 3), (), grant, SamplingParams(), deadline=until, **options)
        self.heard[key] = []
        self.open[key] = Assignment(key, job, self.heard[key].append, TOKENIZER, self.now, DEFAULT_TARGETS)
        assignment = self.open[key]
        self.dispatcher.begin(assignment)
        return assignment

    def advance(self, seconds: float) -> None:
        self.now += seconds
        due = [timer for timer in self.timers if timer.at <= self.now]
        self.timers = [timer for timer in self.timers if timer.at > self.now]
        for timer in due:
            if timer.callback is not None:
                timer.callback()

    def die(self, number: int) -> None:
        self.processes[number].die()
        self.instances[number].phase = "down"
        self.dispatcher.lost(self.instances[number])

    def revive(self, number: int) -> None:
        if not self.instances[number].ready:
            self.instances[number].phase = "ready"
            self.instances[number].epoch += 1
            self.dispatcher.dispatch()

    def settle(self) -> None:
        for number in range(len(self.instances)):
            self.revive(number)
        for _ in range(400):
            for process in self.processes:
                process.heed()
                process.work()
            self.advance(0.01)

    def tokens(self, key: int) -> list[int]:
        return [token for event in self.heard[key] if isinstance(event, Emitted) for token in event.ids]

    def ends(self, key: int) -> list[Event]:
        return [event for event in self.heard[key] if not isinstance(event, Emitted)]


class Chaos(RuleBasedStateMachine):
    jobs = Bundle("jobs")

    @initialize(roles=st.sampled_from([{}, {"prefill": 1, "decode": 2}, {"prefill": 2, "decode": 1}, {"prefill": 1}]))
    def begin(self, roles) -> None:
        self.pool = Pool(assign(3, roles))

    @rule(target=jobs, grant=st.integers(0, 6), deadline=st.none() | st.floats(0.0, 2.0))
    def submit(self, grant: int, deadline: float | None) -> int:
        return self.pool.submit(grant, deadline).key

    @rule(key=jobs, grant=st.integers(0, 12))
    def extend(self, key: int, grant: int) -> None:
        if key in self.pool.open:
            self.pool.dispatcher.extend(self.pool.open[key], grant)

    @rule(key=jobs)
    def stop(self, key: int) -> None:
        if key in self.pool.open:
            self.pool.dispatcher.stop(self.pool.open[key])

    @rule(key=jobs)
    def drop(self, key: int) -> None:
        if key in self.pool.open:
            self.pool.dropped.add(key)
            self.pool.dispatcher.drop(self.pool.open[key])

    @rule(number=st.integers(0, 2), times=st.integers(1, 4))
    def heed(self, number: int, times: int) -> None:
        for _ in range(times):
            self.pool.processes[number].heed()

    @rule(number=st.integers(0, 2))
    def work(self, number: int) -> None:
        self.pool.processes[number].work()

    @rule(number=st.integers(0, 2))
    def engine_fails(self, number: int) -> None:
        self.pool.processes[number].break_one()

    @rule(number=st.integers(0, 2))
    def die(self, number: int) -> None:
        self.pool.die(number)

    @precondition(lambda self: not all(each.ready for each in self.pool.instances))
    @rule(number=st.integers(0, 2))
    def revive(self, number: int) -> None:
        self.pool.revive(number)

    @rule(number=st.integers(0, 2), role=st.sampled_from(["mixed", "prefill", "decode"]))
    def change_role(self, number: int, role: Role) -> None:
        self.pool.instances[number].role = role

    @rule(seconds=st.floats(0.01, RECOVERY))
    def time_passes(self, seconds: float) -> None:
        self.pool.advance(seconds)

    @invariant()
    def nothing_is_said_twice_and_nothing_after_the_end(self) -> None:
        for key, events in self.pool.heard.items():
            assert self.pool.tokens(key) == list(range(len(self.pool.tokens(key))))
            ends = self.pool.ends(key)
            assert len(ends) <= 1
            assert not ends or events[-1] is ends[0]
            assert not (ends and key in self.pool.open)

    def teardown(self) -> None:
        if not hasattr(self, "pool"):
            return
        pool = self.pool
        pool.settle()
        for key in pool.heard:
            assert len(pool.ends(key)) == (0 if key in pool.dropped else 1), pool.heard[key]
        assert not pool.open
        assert not pool.dispatcher.waiting
        assert not any(each.legs for each in pool.instances)
        assert not any(process.here for process in pool.processes), "no sequence is left in any engine"
        assert not pool.shared, "no KV cache is left in shared memory"


TestChaos = Chaos.TestCase
TestChaos.settings = settings(max_examples=60, stateful_step_count=40)


def run(pool: Pool, process: int, times: int = 1) -> None:
    for _ in range(times):
        pool.processes[process].heed()
        pool.processes[process].work()


def test_an_answer_is_begun_by_one_and_finished_by_another():
    pool = Pool(["prefill", "decode"])
    key = pool.submit(4).key
    run(pool, 0)
    assert pool.tokens(key) == [0], "the first token is on its way before anyone has accepted the KV cache"
    assert pool.shared
    run(pool, 1)
    run(pool, 0)
    assert not pool.processes[0].here
    assert not pool.shared
    run(pool, 1, 5)
    assert pool.tokens(key) == [0, 1, 2, 3]
    [ended] = pool.ends(key)
    assert isinstance(ended, Ended)
    assert ended.usage.prefill_ms == 4.0, "of both"


def test_where_nobody_takes_over_it_goes_on_where_it_is():
    pool = Pool(["prefill", "decode"])
    for _ in range(PLACES):
        pool.processes[1].here[next(pool.dispatcher._keys)] = At(Job("", (), (), 9, SamplingParams()), 9)
    key = pool.submit(3).key
    run(pool, 0)
    pool.processes[1].heed()
    assert not pool.shared or pool.processes[0].told, "it is told to resume"
    run(pool, 0, 4)
    assert pool.tokens(key) == [0, 1, 2]
    assert not pool.shared


def test_a_rejected_one_goes_to_the_next_and_then_waits_its_turn():
    pool = Pool(["mixed", "mixed"], queue_depth=1)
    keys = [pool.submit(2).key for _ in range(2 * PLACES + 1)]
    for _ in range(8):
        for process in pool.processes:
            process.heed()
    assert [len(process.here) for process in pool.processes] == [PLACES, PLACES]
    assert [assignment.key for assignment in pool.dispatcher.waiting] == [keys[-1]]
    pool.settle()
    assert all(pool.tokens(key) == [0, 1] for key in keys)


def test_who_finds_the_queue_full_is_told_when_to_come_back():
    pool = Pool(["mixed"], queue_depth=0)
    for _ in range(PLACES):
        pool.submit(100)
    refused = pool.submit(1).key
    for _ in range(4):
        pool.processes[0].heed()
    [end] = pool.ends(refused)
    assert isinstance(end, Refused)
    assert (end.refusal.reason, end.refusal.retry_after_ms) == ("busy", 100.0)


def test_until_the_deadline_and_no_longer():
    pool = Pool(["mixed"])
    for _ in range(PLACES):
        pool.submit(100)
    key = pool.submit(1, deadline=1.0).key
    for _ in range(4):
        pool.processes[0].heed()
    pool.advance(0.99)
    assert pool.heard[key] == []
    pool.advance(0.02)
    [end] = pool.ends(key)
    assert isinstance(end, Refused)
    assert end.refusal.reason == "deadline"
    assert end.refusal.retry_after_ms == 100.0


def test_a_deadline_that_passes_while_it_is_offered():
    pool = Pool(["mixed"])
    for _ in range(PLACES):
        pool.submit(100)
    key = pool.submit(1, deadline=1.0).key
    pool.advance(1.1)
    assert pool.heard[key] == [], "its process may have begun it"
    for _ in range(3):
        pool.processes[0].heed()
    [end] = pool.ends(key)
    assert isinstance(end, Refused)
    assert end.refusal.reason == "deadline"


def test_an_answer_survives_its_process():
    pool = Pool(["mixed", "mixed"])
    key = pool.submit(4).key
    run(pool, 0, 2)
    pool.die(0)
    run(pool, 1, 4)
    assert pool.tokens(key) == [0, 1, 2, 3]
    assert [type(end) for end in pool.ends(key)] == [Ended]


def test_one_that_kills_every_process_ends_with_a_retriable_error():
    pool = Pool(["mixed", "mixed", "mixed"])
    key = pool.submit(4).key
    for number in (0, 1):
        run(pool, number)
        pool.die(number)
    [end] = pool.ends(key)
    assert isinstance(end, Failed)
    assert (end.code, end.retriable) == ("engine", True)
    assert not pool.processes[2].told, "the last one is spared"


def test_an_answer_that_finds_no_other_instance_ends_with_a_retriable_error():
    pool = Pool(["mixed"])
    key = pool.submit(4).key
    run(pool, 0)
    pool.die(0)
    pool.advance(RECOVERY + 0.1)
    [end] = pool.ends(key)
    assert isinstance(end, Failed)
    assert end.retriable


def test_a_long_prompt_is_not_passed_by():
    """Whoever waits longest is asked first wherever a place becomes free, and nobody else until it has refused it."""
    pool = Pool(["mixed"], queue_depth=5)
    running = [pool.submit(1) for _ in range(PLACES)]
    for _ in range(2):
        pool.processes[0].heed()
    first = pool.submit(1)
    pool.processes[0].heed()
    second = pool.submit(1)
    assert second.leg is None
    assert pool.dispatcher.waiting == [first, second]
    pool.dispatcher.drop(running[0])
    assert first.leg is None, "its place is not free before its process says so"
    run(pool, 0)
    assert first.leg is not None
    assert second.leg is not None, "it may have room for both: it is asked"


def test_who_waits_is_offered_again_with_each_report():
    """Room may come of what no frame tells, such as a prompt that is half read."""
    pool = Pool(["mixed"])
    process = pool.processes[0]
    process.here = {-1: At(Job("", (), (), 1, SamplingParams()), 1), -2: At(Job("", (), (), 1, SamplingParams()), 1)}
    key = pool.submit(1).key
    process.heed()
    process.here.clear()
    process.heed()
    assert pool.dispatcher.waiting
    process.tell(frames.State(Occupancy(), 0.0, 0.0, 0, 0))
    run(pool, 0, 2)
    assert pool.tokens(key) == [0]


def test_a_stop_string_ends_it_whoever_does_it():
    pool = Pool(["mixed"])
    stop = TOKENIZER.token_bytes(1).decode() + TOKENIZER.token_bytes(2).decode()
    key = pool.submit(9, stop=(stop,), wants_text=True).key
    run(pool, 0, 5)
    [end] = pool.ends(key)
    assert isinstance(end, Ended)
    assert end.reason == "stop"
    data = b"".join(event.data for event in pool.heard[key] if isinstance(event, Emitted))
    assert data == TOKENIZER.token_bytes(0)
    run(pool, 0)
    assert not pool.processes[0].here


@pytest.mark.parametrize("role", ["prefill", "decode"])
def test_with_one_role_left_all_is_served_all_the_same(role):
    pool = Pool(["prefill", "decode"])
    pool.die(0 if role == "decode" else 1)
    key = pool.submit(3).key
    run(pool, 1 if role == "decode" else 0, 5)
    assert pool.tokens(key) == [0, 1, 2]
