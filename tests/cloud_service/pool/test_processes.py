"""Real engine processes with scripted engines: started, killed, replaced, given up."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from cloud_service.backend import Opened
from cloud_service.metrics import Metrics
from cloud_service.pool.backend import PoolBackend, PoolError
from cloud_service.pool.open import open_pool
from cloud_service.scheduler.jobs import Emitted, Ended, Event, Failed, HandedOver, Job, Refusal, Ticket
from cloud_service.settings import Settings
from model_runtime.core import Chunk
from model_runtime.sampling import Sampler, SamplingParams
from model_runtime.testing import ScriptedEngine, ScriptedTokenizer

COMMAND = (sys.executable, str(Path(__file__).with_name("scripted_worker.py")))
# Processes take seconds to start, and minutes where the machine is busy with something else.
pytestmark = pytest.mark.timeout(400)
PATIENCE = 60
PROMPT = tuple(range(20))


@contextlib.asynccontextmanager
async def pool(model: str = "works", **options: Any) -> AsyncIterator[tuple[Opened, Metrics, list[str]]]:
    metrics, causes = Metrics(), []
    defaults: dict[str, Any] = {"instances": 1, "linger_ms": 0.0, "max_sequences": 4, "kept_sequences": 4}
    settings = Settings(model=model, **{**defaults, **options})
    opened = await open_pool(
        settings, metrics, causes.append, command=COMMAND, load_tokenizer=lambda _: ScriptedTokenizer()
    )
    try:
        yield opened, metrics, causes
    finally:
        await asyncio.to_thread(opened.backend.close, 10.0)
        opened.refinery.close()
        assert all(instance.pid is None for instance in backend_of(opened).instances)


def backend_of(opened: Opened) -> PoolBackend:
    assert isinstance(opened.backend, PoolBackend)
    return opened.backend


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def job(grant: int = 8, **options: Any) -> Job:
    return Job("job", PROMPT, (), grant, SamplingParams(temperature=0.7, seed=3), **options)


def said_alone(grant: int) -> list[int]:
    """By the same engine in this process."""
    engine = ScriptedEngine(answer_length=100_000)
    sampler, tokens, output = Sampler(job().sampling, PROMPT), list(PROMPT), []
    sequence = engine.open()
    while len(output) < grant:
        [result] = engine.forward([Chunk(sequence, tokens)])
        output.append(sampler.sample(result.logits[-1], output))
        tokens = output[-1:]
    return output


class Heard:
    def __init__(self) -> None:
        self.events: list[Event] = []
        self.over = asyncio.Event()

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        if not isinstance(event, Emitted):
            self.over.set()

    @property
    def ids(self) -> list[int]:
        return [token for event in self.events if isinstance(event, Emitted) for token in event.ids]

    async def end(self) -> Event:
        async with asyncio.timeout(PATIENCE):
            await self.over.wait()
        return self.events[-1]


async def test_answers_go_from_one_process_to_another_and_survive_the_death_of_both():
    async with pool(instances=3, roles="prefill=1,decode=2") as (opened, metrics, causes):
        backend = backend_of(opened)
        await until(lambda: all(instance.ready for instance in backend.instances))
        heard = Heard()
        assert isinstance(backend.submit(job(40), heard), Ticket)
        assert (await heard.end()).reason == "grant"
        assert heard.ids == said_alone(40)
        assert not any(isinstance(event, HandedOver) for event in heard.events)
        samples = {sample.name: sample.value for family in metrics.registry.collect() for sample in family.samples}
        assert samples["pd_kv_transfer_seconds_count"] == 1
        assert samples["pd_kv_transfer_bytes_total"] > 0

        several = [Heard() for _ in range(3)]
        for each in several:
            backend.submit(job(600), each)
        await until(lambda: all(len(each.ids) > 5 for each in several))
        victim = next(instance for instance in backend.instances if instance.role == "decode" and instance.legs)
        os.kill(victim.pid, signal.SIGKILL)
        expected = said_alone(600)
        for each in several:
            assert (await each.end()).reason == "grant"
            assert each.ids == expected, "moved or not, it is the same answer"
        await until(lambda: victim.ready)
        assert victim.restarts.total == 1
        assert not causes
        assert not any(instance.legs for instance in backend.instances)


async def test_a_model_that_cannot_be_loaded_is_told_once():
    with pytest.raises(PoolError, match="there is no such model"):
        async with pool("refuse", instances=3):
            pass


async def test_no_restart_loop():
    began = time.monotonic()
    with pytest.raises(PoolError, match="again and again"):
        async with pool("die", restart_limit=2):
            pass
    assert time.monotonic() - began < PATIENCE


async def test_when_none_is_left_everyone_is_told():
    async with pool(restart_limit=1) as (opened, _, causes):
        backend = backend_of(opened)
        heard = Heard()
        backend.submit(job(100_000), heard)
        await until(lambda: len(heard.ids) > 2)
        os.kill(backend.instances[0].pid, signal.SIGKILL)
        end = await heard.end()
        assert isinstance(end, Failed)
        assert end.retriable
        await until(lambda: bool(causes))
        assert not backend.ready()
        refused = backend.submit(job(), heard)
        assert isinstance(refused, Refusal)
        assert refused.reason == "failed"


async def test_a_process_that_hangs_is_replaced():
    async with pool("hang", instance_timeout_ms=1500.0) as (opened, _, _):
        backend = backend_of(opened)
        pid = backend.instances[0].pid
        heard = Heard()
        backend.submit(job(deadline=time.monotonic() + PATIENCE), heard)
        await until(lambda: backend.instances[0].restarts.total > 0)
        await until(lambda: backend.instances[0].pid not in (None, pid))


async def test_a_process_that_is_stopped_is_replaced():
    async with pool(instance_timeout_ms=1500.0) as (opened, _, _):
        backend = backend_of(opened)
        pid = backend.instances[0].pid
        os.kill(pid, signal.SIGSTOP)
        await until(lambda: backend.instances[0].restarts.total > 0)
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


async def test_stopping_leaving_and_extending():
    async with pool() as (opened, _, _):
        backend = backend_of(opened)
        stopped, left, extended = Heard(), Heard(), Heard()
        tickets = [backend.submit(job(10_000), each) for each in (stopped, left)]
        await until(lambda: bool(stopped.ids and left.ids))
        backend.stop(tickets[0].key)
        backend.abandon(tickets[1].key)
        assert (await stopped.end()).reason == "stopped"
        ticket = backend.submit(job(30), extended)
        backend.extend(ticket.key, 60)
        await extended.end()
        assert len(extended.ids) == 60
        assert not left.over.is_set()
        await until(lambda: backend.occupancy().running == 0 and backend.occupancy().kv_share == 0)


async def test_closing_ends_what_runs_with_a_retriable_error():
    heard = Heard()
    async with pool() as (opened, _, _):
        backend_of(opened).submit(job(100_000), heard)
        await until(lambda: bool(heard.ids))
        idle = opened.backend.drain()
        assert not opened.backend.ready()
        assert not idle.done()
    end = await heard.end()
    assert isinstance(end, Failed)
    assert end.retriable
    assert idle.done()


async def test_a_drained_pool_is_idle_once_all_have_ended_those_that_waited_too():
    async with pool(max_sequences=2, queue_depth=8) as (opened, _, _):
        heard = [Heard() for _ in range(6)]
        for each in heard:
            assert isinstance(opened.backend.submit(job(5), each), Ticket)
        idle = opened.backend.drain()
        assert [type(await each.end()) for each in heard] == [Ended] * 6
        await until(idle.done)
        assert isinstance(opened.backend.submit(job(5), heard[0]), Refusal)
