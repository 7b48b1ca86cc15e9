"""One engine, one thread, many generations: what the rest of the service sees of the scheduler."""

from __future__ import annotations

import contextlib
import itertools
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future

from cloud_service.metrics import Occupancy
from cloud_service.scheduler.engine_loop import EngineLoop, PassObserver
from cloud_service.scheduler.generation import Generation
from cloud_service.scheduler.jobs import Event, Job, Listener, Refusal, Ticket
from cloud_service.scheduler.mailbox import Begin, Close, Drain, ExtendGrant, Leave, Mailbox
from cloud_service.scheduler.passes import PassGuard
from cloud_service.scheduler.policy import PassBudget
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
        post: Post,
        observe: PassObserver,
        failed: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`places` generations share the passes and `queue_depth` more may wait. `failed` is posted once, with the
        cause, if the engine breaks. The engine is shut down when the runner ends."""
        self._engine = engine
        self._places = places
        self._queue_depth = queue_depth
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
            mailbox=self._mailbox,
            guard=self._guard,
            clock=clock,
            deliver=self._deliver,
            ended=self._forget,
            observe=observe,
        )
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def submit(self, job: Job, listener: Listener) -> Ticket | Refusal:
        """Take on a job. `listener` is called only after a Ticket was returned, and never on this call's stack."""
        with self._lock:
            refusal = self._refuse(job)
            if refusal is not None:
                return refusal
            queue_s = self._until_free_place()
            generation = Generation(
                key=next(self._keys),
                job=job,
                listener=listener,
                tokenizer=self._engine.tokenizer,
                context_length=self._engine.info.context_length,
                arrived=self._clock(),
                last_pass=0,
            )
            self._live[generation.key] = generation
        self._mailbox.put(Begin(generation))
        return Ticket(generation.key, queue_s * 1000)

    def extend(self, key: int, grant: int) -> None:
        """Raise the grant of a generation; one that has ended is left alone."""
        self._mailbox.put(ExtendGrant(key, grant))

    def stop(self, key: int) -> None:
        """End a generation; its listener gets `Ended("stopped")`, unless it has ended already."""
        self._guard.leave(key)
        self._mailbox.put(Leave(key, tell=True))

    def abandon(self, key: int) -> None:
        """End a generation whose listener is gone: it may be called a last time, and then never again."""
        self._guard.leave(key)
        self._mailbox.put(Leave(key, tell=False))

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
        waiting = sum(g.sequence is None for g in live)
        kv_tokens = sum(g.fed for g in live)
        return Occupancy(
            running=len(live) - lingering - waiting,
            lingering=lingering,
            waiting=waiting,
            kv_tokens=kv_tokens,
            kv_share=kv_tokens / (self._places * self._engine.info.context_length),
        )

    # --- admission; the lock is held ----------------------------------------------------------------------------

    def _refuse(self, job: Job) -> Refusal | None:
        if self._broken is not None:
            return Refusal("failed", f"the engine failed: {self._broken}")
        if self._draining:
            return Refusal("draining", "the service is going away; go to another instance")
        wait = self._until_free_place()
        held = [g for g in self._live.values() if g.linger_until is None]
        if len(held) >= self._places + self._queue_depth:
            message = f"{self._places} generations are running and {self._queue_depth} are waiting"
            return Refusal("busy", message, retry_after_ms=wait * 1000 if self._loop.pace.prefill_s else None)
        if job.deadline is not None:
            own = len(job.prompt) + len(job.output)
            others = [g.demand for g in held if g.sequence is not None]
            first_token = self._clock() + wait + self._loop.pace.until_first_token(own, others)
            if first_token > job.deadline:
                return Refusal("deadline", "the first token would come after the deadline", wait * 1000)
        return None

    def _until_free_place(self) -> float:
        live = [g for g in self._live.values() if g.linger_until is None]
        seated = [g.demand for g in live if g.sequence is not None]
        waiting = [g.demand for g in live if g.sequence is None]
        return self._loop.pace.until_free_place(self._places, seated, waiting)

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
