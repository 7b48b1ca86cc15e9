"""Drives the service's scheduler from a benchmark's own thread, without sockets."""

from __future__ import annotations

import queue
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cloud_service.scheduler.jobs import Emitted, Ended, Event, Job, Ticket
from cloud_service.scheduler.policy import PassBudget
from cloud_service.scheduler.runner import Runner
from model_runtime.sampling import SamplingParams

if TYPE_CHECKING:
    from collections.abc import Iterable

    from model_runtime.core import Engine

#: The service's own default.
PASS_TOKENS = 512


@dataclass(frozen=True, slots=True)
class Request:
    """One answer, or the beginning of one."""

    prompt: tuple[int, ...]
    grant: int


class Driver:
    """A running scheduler over `engine`, which stays open."""

    def __init__(self, engine: Engine, places: int) -> None:
        self._places = places
        self._events: queue.SimpleQueue[tuple[int, Event]] = queue.SimpleQueue()
        self._runner = Runner(
            engine,
            budget=PassBudget(PASS_TOKENS),
            places=places,
            queue_depth=places,
            keeps_prefixes=False,
            post=lambda call: call(),
            observe=lambda seconds, prefill, decode: None,
            failed=lambda cause: None,
        )

    def run(self, requests: Iterable[Request]) -> float:
        """Seconds for all of them; as many at a time as there are places, and as many again that wait. Raises
        RuntimeError where one does not end as it should."""
        waiting = iter(list(requests))
        open_requests = 0
        started = time.perf_counter()
        for _ in range(2 * self._places):
            open_requests += self._submit(next(waiting, None))
        while open_requests:
            _, event = self._events.get()
            if isinstance(event, Emitted):
                continue
            if not isinstance(event, Ended) or event.reason != "grant":
                raise RuntimeError(f"an answer ended by {event}")
            open_requests += self._submit(next(waiting, None)) - 1
        return time.perf_counter() - started

    def close(self) -> None:
        """Also shuts the engine down."""
        self._runner.close(timeout=30)

    def _submit(self, request: Request | None) -> int:
        if request is None:
            return 0
        job = Job("benchmark", request.prompt, (), request.grant, SamplingParams())
        ticket = self._runner.submit(job, lambda event: self._events.put((0, event)))
        if not isinstance(ticket, Ticket):
            raise RuntimeError(f"refused: {ticket}")
        return 1
