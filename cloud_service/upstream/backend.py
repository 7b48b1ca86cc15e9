"""The backend whose engines are elsewhere."""

from __future__ import annotations

import asyncio
import concurrent.futures
import itertools
import logging
from typing import Literal

from cloud_service.metrics import Occupancy
from cloud_service.scheduler.jobs import Event, Failed, Job, Listener, Refusal, Ticket
from cloud_service.upstream.flight import Flight
from cloud_service.upstream.pool import CHECK_EVERY, Pool
from cloud_service.upstream.prompts import PromptText

logger = logging.getLogger(__name__)


class UpstreamBackend:
    """See `cloud_service.backend.Backend`. Belongs to one event loop, but for `close`."""

    def __init__(self, pool: Pool, prompts: PromptText, *, per_server: int) -> None:
        """`pool` is open, and closed in the end. `per_server`: generations that one server may have at a time."""
        self._pool = pool
        self._prompts = prompts
        self._most = per_server * pool.size
        self._loop = asyncio.get_running_loop()
        self._flights: dict[int, Flight] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._keys = itertools.count()
        self._draining = False
        self._idle: concurrent.futures.Future[None] = concurrent.futures.Future()

    @property
    def gives_ids(self) -> bool:
        return all(offer.ids_out for offer in self._pool.offers)

    @property
    def holds_constraints(self) -> bool:
        """Some servers hold a new answer to a schema, but none one that is gone on with, as after an extension."""
        return False

    def submit(self, job: Job, listener: Listener) -> Ticket | Refusal:
        if self._draining and not job.goes_on:
            return Refusal("draining", "the service is going away; go to another instance")
        if not self._pool.ready():
            return Refusal("busy", "no upstream is up", CHECK_EVERY * 1000)
        if len(self._flights) >= self._most and not job.goes_on:
            return Refusal("busy", f"{len(self._flights)} generations are running, the most there may be", None)
        key = next(self._keys)
        flight = Flight(job, listener, self._pool, self._prompts, as_ids=self.gives_ids)
        self._flights[key] = flight
        task = flight.begin()
        self._tasks.add(task)
        task.add_done_callback(lambda _: self._landed(key, task))
        return Ticket(key, 0.0)

    def extend(self, key: int, grant: int) -> None:
        if key in self._flights:
            self._flights[key].extend(grant)

    def progress(self, key: int, *, shown: int, pace: float, ready_in: float | None) -> None:
        """A server elsewhere orders its own work, and cannot be told what a device still has."""

    def stop(self, key: int) -> None:
        self._leave(key, "stopped")

    def abandon(self, key: int) -> None:
        self._leave(key, None)

    def ready(self) -> bool:
        return not self._draining and self._pool.ready()

    def occupancy(self) -> Occupancy:
        phases = [flight.phase for flight in tuple(self._flights.values())]
        shares = [server.load.kv_share for server in self._pool.servers if server.load.kv_share is not None]
        return Occupancy(
            running=phases.count("running"),
            lingering=phases.count("lingering"),
            waiting=phases.count("waiting"),
            kv_share=sum(shares) / len(shares) if shares else 0.0,
        )

    def drain(self) -> concurrent.futures.Future[None]:
        self._draining = True
        for flight in self._flights.values():
            flight.drain()
        self._note_if_idle()
        return self._idle

    def close(self, timeout: float) -> None:
        closing = asyncio.run_coroutine_threadsafe(self._close(), self._loop)
        try:
            closing.result(timeout)
        except TimeoutError:
            logger.warning("the upstreams' connections did not close within %g s", timeout)

    async def _close(self) -> None:
        self._draining = True
        gone = Failed("engine", "the service is going away; go to another instance", retriable=True)
        for key in tuple(self._flights):
            self._leave(key, gone)
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._pool.close()

    def _leave(self, key: int, farewell: Event | Literal["stopped"] | None) -> None:
        if key in self._flights:
            self._flights[key].leave(farewell)

    def _landed(self, key: int, task: asyncio.Task[None]) -> None:
        flight = self._flights.pop(key)
        if task.cancelled():  # before it had begun
            flight.say_farewell()
        self._tasks.discard(task)
        self._note_if_idle()

    def _note_if_idle(self) -> None:
        if self._draining and not self._flights and not self._idle.done():
            self._idle.set_result(None)
