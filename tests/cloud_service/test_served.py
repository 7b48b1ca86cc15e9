"""A generation that is read twice, where messages cross: it ends once, and leaves nothing in the backend."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from cloud_service.metrics import Metrics
from cloud_service.refinement.contract import Needs
from cloud_service.scheduler.jobs import Ended, Job, Looked, Refusal, Refused, Ticket
from cloud_service.served import Served
from model_runtime.sampling import SamplingParams
from wire_protocol.messages import Usage

JOB = Job("a", (1, 2, 3, 4), (), 5, SamplingParams(), needs=Needs((0,), prompt_rows=2))
LOOK, ANSWER = Usage(4, 1, 0, 1.0, 10.0, 0.0), Usage(4, 0, 5, 0.5, 4.0, 6.0)


class Backend:
    """Takes what it is given, and notes it."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.told: list[tuple[Any, ...]] = []
        self.refusal: Refusal | None = None

    def submit(self, job: Job, listener: Any) -> Ticket | Refusal:
        if self.refusal is not None:
            return self.refusal
        self.jobs.append(job)
        return Ticket(len(self.jobs), 0.0)

    def extend(self, key: int, grant: int) -> None:
        self.told.append(("extend", key, grant))

    def stop(self, key: int) -> None:
        self.told.append(("stop", key))

    def abandon(self, key: int) -> None:
        self.told.append(("abandon", key))


class Limits:
    held = 1

    async def spend(self, caller: object, tokens: int) -> None:
        return None

    def release(self, caller: object) -> None:
        self.held -= 1


def begun() -> tuple[Served, Backend, Limits, list[Any]]:
    backend, limits, heard = Backend(), Limits(), list[Any]()
    trace = SimpleNamespace(end=lambda *_: None, trace_id="")
    served = Served(backend, limits, Metrics(), trace, SimpleNamespace(name="c"), JOB, heard.append, rereads=True)  # type: ignore[arg-type]
    answer = backend.submit(served.first_job, served.hear)
    assert isinstance(answer, Ticket)
    served.begin(answer)
    return served, backend, limits, heard


async def test_a_look_and_then_the_answer_to_what_is_kept() -> None:
    served, backend, limits, heard = begun()
    assert (backend.jobs[0].grant, backend.jobs[0].needs) == (0, JOB.needs)
    served.hear(Ended("grant", LOOK))
    assert heard == [Looked()]
    served.go_on(((0, 1), (2, 4)))
    served.go_on(None)
    [_, answer] = backend.jobs
    assert (answer.prompt, answer.whole_prompt, answer.grant, answer.goes_on) == ((1, 3, 4), JOB.prompt, 5, True)
    assert answer.needs.nothing
    await served.extend(9)
    assert backend.told == [("extend", 2, 9)]
    served.hear(Ended("eos", ANSWER))
    assert heard[1:] == [Ended("eos", Usage(4, 1, 5, 1.5, 14.0, 6.0))]
    assert limits.held == 0


async def test_what_is_kept_may_be_known_before_the_look_is_over() -> None:
    served, backend, _, heard = begun()
    served.go_on(None)
    await served.extend(7)
    served.hear(Ended("grant", LOOK))
    assert len(backend.jobs) == 1, "not while the backend tells of the look"
    await asyncio.sleep(0)
    assert (backend.jobs[1].prompt, backend.jobs[1].grant, backend.jobs[1].asked) == (JOB.prompt, 7, None)
    assert backend.told == []
    assert heard == []


async def test_a_stop_between_the_readings_wins_over_what_comes_in_the_same_moment() -> None:
    served, backend, limits, heard = begun()
    served.hear(Ended("grant", LOOK))
    served.stop()
    served.go_on(None)
    await asyncio.sleep(0)
    assert len(backend.jobs) == 1
    assert heard[1:] == [Ended("stopped", Usage(4, 1, 0, 1.0, 10.0, 0.0))]
    assert limits.held == 0


async def test_a_stop_that_crosses_the_end_of_the_look() -> None:
    served, backend, _, heard = begun()
    served.stop()
    assert backend.told == [("stop", 1)]
    served.hear(Ended("grant", LOOK))
    served.go_on(None)
    await asyncio.sleep(0)
    assert (len(backend.jobs), heard) == (1, [Ended("stopped", LOOK)])


async def test_who_leaves_between_the_readings_leaves_nothing() -> None:
    for first in ("look", "scores"):
        served, backend, limits, heard = begun()
        if first == "scores":
            served.go_on(None)
        served.hear(Ended("grant", LOOK))
        served.abandon()
        served.go_on(None)
        await asyncio.sleep(0)
        assert len(backend.jobs) == 1
        assert heard in ([], [Looked()])
        assert limits.held == 0


async def test_a_backend_that_takes_no_more() -> None:
    served, backend, limits, heard = begun()
    served.hear(Ended("grant", LOOK))
    backend.refusal = Refusal("failed", "no engine process is left")
    served.go_on(None)
    assert heard[1:] == [Refused(backend.refusal)]
    assert limits.held == 0
