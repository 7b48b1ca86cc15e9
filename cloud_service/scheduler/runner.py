"""One engine, one thread, many generations: what the rest of the service sees of the scheduler."""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from cloud_service.metrics import Occupancy
from cloud_service.scheduler.engine_loop import EngineLoop, PassObserver
from cloud_service.scheduler.estimates import Demand, Room
from cloud_service.scheduler.generation import Generation
from cloud_service.scheduler.jobs import Carried, Event, Job, Listener, Refusal, Ticket
from cloud_service.scheduler.mailbox import Begin, Close, Drain, ExtendGrant, Leave, Mailbox, Reported, Resume
from cloud_service.scheduler.passes import PassGuard
from cloud_service.scheduler.policy import PassBudget
from cloud_service.scheduler.seats import Seats
from cloud_service.scheduler.slack import DEFAULT_TARGETS, Report, Targets
from model_runtime import constraint
from model_runtime.core import Engine

logger = logging.getLogger(__name__)

#: Runs a callable on the listeners' thread, soon and in order; `loop.call_soon_threadsafe`.
Post = Callable[[Callable[[], None]], object]


class Runner:
    """Every method may be called from any thread and returns at once. Changes take effect at the next pass, and a
    pass that only stopped generations are in is cancelled."""

    def __init__(
        self,
        engine: Engine,
        *,
        budget: PassBudget,
        places: int,
        queue_depth: int,
        targets: Targets = DEFAULT_TARGETS,
        keeps_prefixes: bool = True,
        holds_queue: bool = True,
        post: Post,
        observe: PassObserver,
        failed: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`places` generations share the passes and `queue_depth` more may wait. `keeps_prefixes`: what is left of
        the engine's memory and sequences holds those of past generations. `holds_queue`: without one, a job is taken
        on only where its prefill begins with the next pass, whatever `queue_depth` says. `failed` is posted once, with
        the cause, if the engine breaks. The engine is shut down when the runner ends."""
        self._engine = engine
        self._room = Room(places, engine.info.kv_tokens or places * engine.info.context_length)
        self._targets = targets
        self._seats = Seats(engine, self._room.kv, keeps=keeps_prefixes)
        self._queue_depth = queue_depth if holds_queue else 0
        #: Prompt tokens that may wait for their prefill when one more job is taken on.
        self._most_backlog = None if holds_queue else budget.tokens
        self._post = post
        self._failed = failed
        self._clock = clock
        self._mailbox = Mailbox()
        self._guard = PassGuard()
        self._lock = threading.Lock()
        self._live: dict[int, Generation] = {}
        self._keys = itertools.count()
        self._draining = False
        self._broken: str | None = None
        self._idle: Future[None] = Future()
        self._loop = EngineLoop(
            engine,
            budget,
            places,
            self._seats,
            mailbox=self._mailbox,
            guard=self._guard,
            clock=clock,
            deliver=self._deliver,
            ended=self._forget,
            observe=observe,
        )
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def submit(self, job: Job, listener: Listener, carried: Carried | None = None) -> Ticket | Refusal:
        """Take on a job. `listener` is called only after a Ticket was returned, and never on this call's stack.
        `carried`: what is there of its KV cache already."""
        with self._lock:
            generation = Generation(
                key=next(self._keys),
                job=job,
                listener=listener,
                tokenizer=self._engine.tokenizer,
                context_length=self._engine.info.context_length,
                arrived=self._clock(),
                targets=self._targets,
                carried=carried,
            )
            cached = self._seats.cached(generation.tokens[: generation.reusable], job.scope)
            if carried is not None:
                cached = carried.tokens
            generation.expected = cached
            generation.prefill_s = generation.to_prefill * self._loop.pace.prefill_s
            own = generation.demand
            queue_s = self._until_seated(own)
            refusal = self._refuse(job, own, queue_s)
            if refusal is not None:
                return refusal
            self._live[generation.key] = generation
        self._mailbox.put(Begin(generation))
        return Ticket(generation.key, queue_s * 1000, cached)

    def extend(self, key: int, grant: int) -> None:
        """Raise the grant of a generation; one that has ended is left alone."""
        self._mailbox.put(ExtendGrant(key, grant))

    def progress(self, key: int, *, shown: int, pace: float, ready_in: float | None) -> None:
        """A device has shown `shown` of a generation's tokens, and shows them `pace` seconds apart (0: each at once).
        In `ready_in` seconds it expects to need no more. Orders the work; one that has ended is left alone."""
        now = self._clock()
        report = Report(now, shown, pace, None if ready_in is None else now + ready_in)
        self._mailbox.note(Reported(key, report))

    def stop(self, key: int) -> None:
        """End a generation; its listener gets `Ended("stopped")`, unless it has ended already."""
        self._guard.leave(key)
        self._mailbox.put(Leave(key, tell=True))

    def abandon(self, key: int) -> None:
        """End a generation whose listener is gone: it may be called a last time, and then never again."""
        self._guard.leave(key)
        self._mailbox.put(Leave(key, tell=False))

    def resume(self, key: int) -> None:
        """Nobody took the KV cache that was handed over: the generation goes on here."""
        self._mailbox.put(Resume(key))

    def hold_no_grants(self) -> None:
        """From now on a used-up grant ends at once. Unlike `drain`, jobs are still taken on."""
        self._mailbox.put(Drain())

    @property
    def pass_seconds(self) -> float:
        """How long the pass under way has taken so far; 0 between passes."""
        began = self._loop.pass_began
        return 0.0 if began is None else self._clock() - began

    @property
    def gives_ids(self) -> bool:
        return True

    @property
    def holds_constraints(self) -> bool:
        return constraint.available()

    def ready(self) -> bool:
        with self._lock:
            return self._broken is None and not self._draining

    def drain(self) -> Future[None]:
        """Take on no more jobs; the future is done when none is left."""
        with self._lock:
            self._draining = True
            self._note_if_idle()
        self._mailbox.put(Drain())
        return self._idle

    def close(self, timeout: float) -> None:
        """End what is left with a retriable error, shut the engine down and wait for that, at most `timeout` s."""
        with self._lock:
            self._draining = True
        self._mailbox.put(Close())
        self._guard.close()
        self._thread.join(timeout)

    def occupancy(self) -> Occupancy:
        with self._lock:
            live = list(self._live.values())
        lingering = sum(g.linger_until is not None for g in live)
        waiting = sum(g.seat is None for g in live)
        kv_tokens = sum(g.fed for g in live)
        return Occupancy(
            running=len(live) - lingering - waiting,
            lingering=lingering,
            waiting=waiting,
            kv_tokens=kv_tokens,
            kv_share=self._seats.reserved_tokens / self._room.kv,
            kept_sequences=self._seats.kept_sequences,
            kept_tokens=self._seats.kept_tokens,
        )

    # --- admission; the lock is held ----------------------------------------------------------------------------

    def _refuse(self, job: Job, own: Demand, queue_s: float) -> Refusal | None:
        if self._broken is not None:
            return Refusal("failed", f"the engine failed: {self._broken}")
        if job.goes_on:
            return None
        if self._draining:
            return Refusal("draining", "the service is going away; go to another instance")
        seated, waiting = self._held()
        if len(seated) + len(waiting) >= self._room.places + self._queue_depth:
            message = f"{len(seated)} generations are running and {len(waiting)} are waiting, the most there may be"
            return Refusal("busy", message, self._until_queue_moves(seated, waiting, own))
        if self._most_backlog is not None:
            refusal = self._refuse_to_queue([*seated, *waiting], own, queue_s, self._most_backlog)
            if refusal is not None:
                return refusal
        if job.deadline is not None:
            pace, allowed = self._loop.pace, job.deadline - self._clock()
            prefilling = [generation.demand for generation in seated if generation.given == 0]
            late_by = queue_s + pace.until_first_token(own, prefilling) - allowed
            if late_by > 0:
                # What is ahead of it will be gone some time; its own prefill takes as long then as now.
                possible = own.prefill * pace.prefill_s < allowed
                message = "the first token would come after the deadline"
                return Refusal("deadline", message, late_by * 1000 if possible else None)
        return None

    def _refuse_to_queue(
        self, held: Sequence[Generation], own: Demand, queue_s: float, most_backlog: int
    ) -> Refusal | None:
        demands = [generation.demand for generation in held]
        if sum(demand.kv for demand in demands) + own.kv > self._room.kv:
            return Refusal("busy", "the KV cache has no room for it now", _milliseconds(queue_s))
        backlog = sum(demand.prefill for demand in demands)
        if backlog >= most_backlog:
            wait = (backlog - most_backlog + 1) * self._loop.pace.prefill_s
            return Refusal("busy", f"{backlog} prompt tokens wait for their prefill", _milliseconds(wait))
        return None

    def _until_seated(self, own: Demand) -> float:
        seated, waiting = self._held()
        if not waiting and len(seated) < self._room.places and self._seats.reserved_tokens + own.kv <= self._room.kv:
            return 0.0
        demands = [generation.demand for generation in seated]
        return self._loop.pace.until_seated(own, self._room, demands, [generation.demand for generation in waiting])

    def _until_queue_moves(
        self, seated: Sequence[Generation], waiting: Sequence[Generation], own: Demand
    ) -> float | None:
        """Milliseconds until the first of those that wait gets a seat; None where nothing was measured yet."""
        if self._loop.pace.prefill_s == 0:
            return None
        first = min([*(generation.demand for generation in waiting), own], key=lambda demand: demand.due)
        demands = [generation.demand for generation in seated]
        return self._loop.pace.until_seated(first, self._room, demands, ()) * 1000

    def _held(self) -> tuple[list[Generation], list[Generation]]:
        """Those that have a seat, and those that wait. Used-up grants are neither: they make room for anyone."""
        seated: list[Generation] = []
        waiting: list[Generation] = []
        for generation in self._live.values():
            if generation.linger_until is None:
                (waiting if generation.seat is None else seated).append(generation)
        return seated, waiting

    # --- the engine's thread ------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._loop.run()
        except Exception as error:
            # Whatever it was, nobody knows what state the engine is in: it must not be used again.
            logger.exception("the engine failed")
            message = str(error)
            with self._lock:
                self._broken = message
            self._loop.fail(message)
            self._tell(lambda: self._failed(message))
        finally:
            self._engine.shutdown()

    def _deliver(self, events: list[tuple[Listener, Event]]) -> None:
        def tell() -> None:
            for listener, event in events:
                try:
                    listener(event)
                except Exception:  # one listener's fault must not cost another one its events
                    logger.exception("a listener failed")

        self._tell(tell)

    def _tell(self, what: Callable[[], None]) -> None:
        # RuntimeError: the event loop has ended without waiting for this thread. Nobody listens any more.
        with contextlib.suppress(RuntimeError):
            self._post(what)

    def _forget(self, key: int) -> None:
        with self._lock:
            del self._live[key]
            self._note_if_idle()

    def _note_if_idle(self) -> None:
        if self._draining and not self._live and not self._idle.done():
            self._idle.set_result(None)


def _milliseconds(seconds: float) -> float | None:
    """None where nothing was measured yet, or it could never be."""
    return seconds * 1000 if 0 < seconds < math.inf else None
