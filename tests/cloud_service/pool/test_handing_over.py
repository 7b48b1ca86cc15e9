"""One answer begun by one scheduler and finished by another, with the KV cache of the first."""

from __future__ import annotations

import dataclasses
import queue
import time
from collections.abc import Callable, Iterator

import pytest

from cloud_service.metrics import Occupancy
from cloud_service.refinement.contract import Needs
from cloud_service.scheduler.jobs import Carried, Emitted, Ended, Event, HandedOver, Job, Refusal, Seen, Ticket
from cloud_service.scheduler.policy import PassBudget
from cloud_service.scheduler.runner import Runner
from model_runtime.loading import load_engine
from model_runtime.sampling import SamplingParams
from model_runtime.testing import Faults, ScriptedEngine

PATIENCE = 30
PROMPT = tuple(range(40))


@pytest.fixture
def start() -> Iterator[Callable[..., Runner]]:
    runners: list[Runner] = []

    def make(engine, **options) -> Runner:
        defaults = {"places": 2, "queue_depth": 4, "budget": PassBudget(64)}
        runner = Runner(
            engine,
            **{**defaults, **options},
            post=lambda call: call(),
            observe=lambda seconds, prefill, decode: None,
            failed=lambda cause: None,
        )
        runners.append(runner)
        return runner

    yield make
    for runner in runners:
        runner.close(PATIENCE)


def job(grant: int = 12, **options) -> Job:
    return Job("job", PROMPT, (), grant, SamplingParams(temperature=0.8, seed=5), **options)


def until(events: queue.Queue[Event], kind: type[Event]) -> list[Event]:
    found: list[Event] = []
    while not found or not isinstance(found[-1], kind):
        found.append(events.get(timeout=PATIENCE))
    return found


def ids(events: list[Event]) -> list[int]:
    return [token for event in events if isinstance(event, Emitted) for token in event.ids]


def run(runner: Runner, what: Job, carried: Carried | None = None) -> tuple[queue.Queue[Event], Ticket]:
    events: queue.Queue[Event] = queue.Queue()
    ticket = runner.submit(what, events.put, carried)
    assert isinstance(ticket, Ticket), ticket
    return events, ticket


@pytest.fixture(params=["scripted", "llama", "onnx"])
def engine(request, tiny_model) -> Callable[[], object]:
    if request.param == "scripted":
        return lambda: ScriptedEngine(answer_length=100_000)
    folder = tiny_model("llama")
    file = folder / ("model.gguf" if request.param == "llama" else "model.onnx")
    return lambda: load_engine(file, threads=1, max_sequences=4)


def test_the_answer_is_the_same_as_without(start, engine):
    whole, _ = run(start(engine()), job())
    expected = until(whole, Ended)

    first, second = start(engine()), start(engine())
    begun, ticket = run(first, job(hands_over=True))
    events = until(begun, HandedOver)
    handed = events[-1]
    assert isinstance(handed, HandedOver)
    assert len(ids(events)) == 1, "the first token leaves before its KV cache does"
    assert handed.carried.tokens == len(PROMPT)
    assert handed.usage.output_tokens == 1

    rest = dataclasses.replace(job(11), output=tuple(ids(events)))
    finished, ticket_there = run(second, rest, handed.carried)
    assert ticket_there.cached_tokens == len(PROMPT)
    first.abandon(ticket.key)
    tail = until(finished, Ended)

    assert ids(events) + ids(tail) == ids(expected)
    assert tail[-1].reason == expected[-1].reason
    assert tail[-1].usage.cached_tokens == len(PROMPT), "nothing is prefilled twice"


def test_one_that_nobody_takes_goes_on_where_it_is(start):
    expected = ids(until(run(start(ScriptedEngine(answer_length=100_000)), job())[0], Ended))
    runner = start(ScriptedEngine(answer_length=100_000))
    events, ticket = run(runner, job(hands_over=True))
    begun = until(events, HandedOver)
    runner.resume(ticket.key)
    tail = until(events, Ended)
    assert not any(isinstance(event, HandedOver) for event in tail)
    assert ids(begun) + ids(tail) == expected


def test_it_holds_its_place_until_it_leaves_and_nothing_after(start):
    runner = start(ScriptedEngine(answer_length=100_000), keeps_prefixes=False)
    events, ticket = run(runner, job(hands_over=True))
    until(events, HandedOver)
    assert runner.occupancy().running == 1
    runner.abandon(ticket.key)
    deadline = time.monotonic() + PATIENCE
    while runner.occupancy() != Occupancy():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_an_answer_of_one_token_is_not_moved(start):
    events, _ = run(start(ScriptedEngine(answer_length=100_000)), job(1, hands_over=True))
    assert [type(event) for event in until(events, Ended)] == [Emitted, Ended]


def test_a_scorer_sees_the_answers_first_tokens_before_it_moves(start):
    needs = Needs(layers=(0,), prompt_rows=4, answer_rows=3)
    events, _ = run(start(ScriptedEngine(answer_length=100_000)), job(hands_over=True, needs=needs))
    seen = [event.stage for event in until(events, HandedOver) if isinstance(event, Seen)]
    assert seen == ["prompt", "answer"]


def test_kv_of_another_model_costs_a_prefill_and_no_more(start):
    theirs, _ = run(start(ScriptedEngine(answer_length=100_000, seed=3)), job(hands_over=True))
    handed = until(theirs, HandedOver)[-1]
    expected = ids(until(run(start(ScriptedEngine(answer_length=100_000)), job())[0], Ended))
    events, _ = run(start(ScriptedEngine(answer_length=100_000)), job(), Carried(handed.carried.kv, 39))
    tail = until(events, Ended)
    assert ids(tail) == expected
    assert tail[-1].usage.cached_tokens == 0


def test_an_engine_that_cannot_export_keeps_what_it_has(start):
    class Bound(ScriptedEngine):
        def export_kv(self, sequence: int) -> bytes:
            from model_runtime.errors import UnsupportedError

            raise UnsupportedError("no export")

    events, _ = run(start(Bound(answer_length=100_000)), job(hands_over=True))
    assert len(ids(until(events, Ended))) == 12


def test_without_a_queue_a_prompt_begins_with_the_next_pass_or_is_refused(start):
    engine = ScriptedEngine(faults=Faults(hang_at=0), answer_length=100_000)
    runner = start(engine, places=8, queue_depth=16, holds_queue=False, budget=PassBudget(64))
    _, first = run(runner, job())
    _, second = run(runner, job())  # 40 tokens before it, less than a pass
    refused = runner.submit(job(), lambda event: None)
    assert isinstance(refused, Refusal)
    assert refused.reason == "busy"
    for ticket in (first, second):
        runner.abandon(ticket.key)


def test_without_a_queue_nobody_waits_for_memory(start):
    engine = ScriptedEngine(answer_length=100_000, context_length=128)
    engine.info = dataclasses.replace(engine.info, kv_tokens=100)
    runner = start(engine, places=8, holds_queue=False)
    engine.faults = Faults(hang_at=0)
    _, first = run(runner, job())  # 52 of 100
    refused = runner.submit(job(), lambda event: None)
    assert isinstance(refused, Refusal)
    assert "KV" in refused.message
    runner.abandon(first.key)
