"""The backend whose engines are processes on this machine."""

from __future__ import annotations

import asyncio
import concurrent.futures
import itertools
import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from cloud_service.metrics import Metrics, Occupancy
from cloud_service.pool import frames
from cloud_service.pool.assignment import Assignment
from cloud_service.pool.dispatcher import Dispatcher
from cloud_service.pool.instance import Instance, Start
from cloud_service.pool.metrics import PoolMetrics, labels
from cloud_service.pool.phases import Phases
from cloud_service.pool.roles import Change, Rebalancer, Role, Split
from cloud_service.scheduler.jobs import Failed, Job, Listener, Refusal, Ticket
from cloud_service.scheduler.slack import DEFAULT_TARGETS, Targets
from model_runtime import constraint
from model_runtime.core import EngineInfo, Tokenizer

logger = logging.getLogger(__name__)

#: Seconds between two looks at the balance of roles.
BALANCE_EVERY = 1.0
#: How long processes get to end by themselves, in seconds.
_GRACE = 3.0


class PoolError(Exception):
    """The pool cannot serve: the message says why."""


class PoolBackend:
    """See `cloud_service.backend.Backend`. Belongs to one event loop, but for `close`."""

    def __init__(
        self,
        start: Start,
        roles: Sequence[Role],
        *,
        queue_depth: int,
        places: int,
        targets: Targets = DEFAULT_TARGETS,
        rebalancer: Rebalancer | None = None,
        metrics: Metrics,
        failed: Callable[[str], None],
    ) -> None:
        """One instance for each of `roles`; none runs before `open`. `queue_depth`: generations that may wait for one.
        `places`: what an instance decodes at a time. `rebalancer`: None leaves roles as they are. `failed` is called,
        once, when no instance is left and none will come back."""
        self.instances = [Instance(number, role, start, self) for number, role in enumerate(roles)]
        self.tokenizer: Tokenizer | None = None
        self._most_waiting = max(1, queue_depth)
        self._targets = targets
        self._rebalancer = rebalancer
        self._service_metrics = metrics
        self._metrics = PoolMetrics(metrics.registry, lambda: self.instances)
        self._failed = failed
        self._phases = Phases(places)
        loop = self._loop = asyncio.get_running_loop()
        self._dispatcher = Dispatcher(
            self.instances, self._metrics, self._phases, queue_depth, self._ended, loop.call_later
        )
        self._assignments: dict[int, Assignment] = {}
        self._keys = itertools.count()
        self._tasks: set[asyncio.Task[None]] = set()
        self._first: asyncio.Future[EngineInfo] = self._loop.create_future()
        self._draining = False
        self._idle: concurrent.futures.Future[None] = concurrent.futures.Future()

    async def open(self) -> EngineInfo:
        """Wait until the first instance is ready; only then the others start, so that a model is fetched once, and one
        that cannot be loaded fails once. Raises PoolError. Set `tokenizer` before the first job."""
        self._spawn(self.instances[0].run())
        info = await self._first
        for instance in self.instances[1:]:
            self._spawn(instance.run())
        if self._rebalancer is not None:
            self._spawn(self._keep_balance(self._rebalancer))
        return info

    # --- from the service ---------------------------------------------------------------------------------------

    @property
    def gives_ids(self) -> bool:
        return True

    @property
    def holds_constraints(self) -> bool:
        return constraint.available()

    def submit(self, job: Job, listener: Listener) -> Ticket | Refusal:
        dispatcher = self._dispatcher
        if self._draining and not job.goes_on:
            return Refusal("draining", "the service is going away; go to another instance")
        if self.tokenizer is None or all(instance.phase == "given up" for instance in self.instances):
            return Refusal("failed", "no engine process is left")
        if len(dispatcher.waiting) >= self._most_waiting and not job.goes_on:
            return dispatcher.busy(None)
        key = next(self._keys)
        assignment = Assignment(key, job, listener, self.tokenizer, time.monotonic(), self._targets)
        self._assignments[key] = assignment
        dispatcher.begin(assignment)
        if assignment.leg is None:
            return Ticket(key, (dispatcher.retry_after(None) or 0.0) * 1000)
        known = assignment.leg.instance.remembered.tokens(assignment.keys)
        return Ticket(key, 0.0, min(known, len(job.prompt)))

    def extend(self, key: int, grant: int) -> None:
        if key in self._assignments:
            self._dispatcher.extend(self._assignments[key], grant)

    def progress(self, key: int, *, shown: int, pace: float, ready_in: float | None) -> None:
        assignment = self._assignments.get(key)
        if assignment is not None and assignment.leg is not None:
            leg = assignment.leg
            leg.instance.say(frames.Progress(leg.key, shown - leg.first, pace, ready_in))

    def stop(self, key: int) -> None:
        if key in self._assignments:
            self._dispatcher.stop(self._assignments[key])

    def abandon(self, key: int) -> None:
        if key in self._assignments:
            self._dispatcher.drop(self._assignments[key])

    def ready(self) -> bool:
        return not self._draining and any(instance.ready for instance in self.instances)

    def occupancy(self) -> Occupancy:
        found = [instance.occupancy for instance in self.instances if instance.ready]
        waiting = len(self._dispatcher.waiting)
        # What an instance says of grants held open is up to `WORD_EVERY` old.
        here = len(self._assignments) - waiting
        lingering = min(here, sum(each.lingering for each in found))
        return Occupancy(
            running=here - lingering,
            lingering=lingering,
            waiting=waiting,
            kv_tokens=sum(each.kv_tokens for each in found),
            kv_share=sum(each.kv_share for each in found) / len(found) if found else 0.0,
            kept_sequences=sum(each.kept_sequences for each in found),
            kept_tokens=sum(each.kept_tokens for each in found),
        )

    def drain(self) -> concurrent.futures.Future[None]:
        self._draining = True
        for instance in self.instances:
            instance.say(frames.Drain())
        self._note_if_idle()
        return self._idle

    def close(self, timeout: float) -> None:
        closing = asyncio.run_coroutine_threadsafe(self.aclose(), self._loop)
        try:
            closing.result(timeout)
        except TimeoutError:
            logger.warning("the engine processes did not end within %g s", timeout)

    async def aclose(self) -> None:
        """As `close`, on the event loop."""
        self._draining = True
        for assignment in tuple(self._assignments.values()):
            self._dispatcher.fail(assignment, Failed("internal", "the service shuts down", retriable=True))
        for instance in self.instances:
            instance.close()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_GRACE)
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # --- from the instances -------------------------------------------------------------------------------------

    def up(self, instance: Instance) -> None:
        info = instance.info
        if info is None:
            raise RuntimeError("an instance is up without an engine")
        if not self._first.done():
            self._first.set_result(info)
        elif info.model_fingerprint != self._first.result().model_fingerprint:
            instance.kill("its model is another one than that of the others: the file has changed since the start")
            return
        if self._draining:
            instance.say(frames.Drain())
        self._dispatcher.dispatch()

    def hear(self, instance: Instance, frame: frames.FromEngine) -> None:
        match frame:
            case frames.State():
                self._service_metrics.observe_pass(frame.busy_s, frame.prefill_tokens, frame.decode_tokens)
                for_this = labels(instance)
                self._metrics.busy.labels(*for_this).inc(frame.busy_s)
                self._metrics.tokens.labels(*for_this, "prefill").inc(frame.prefill_tokens)
                self._metrics.tokens.labels(*for_this, "decode").inc(frame.decode_tokens)
                self._dispatcher.hear(instance, frame)
            case frames.NotLoaded(message) if not self._first.done():
                self._first.set_exception(PoolError(message))
            case _:
                self._dispatcher.hear(instance, frame)

    def down(self, instance: Instance, why: str) -> None:
        if not self._draining:
            self._metrics.crashes.labels(str(instance.number)).inc()
        self._dispatcher.lost(instance)
        if instance.phase == "given up" and not self._first.done():
            self._first.set_exception(PoolError(f"the engine process died again and again: {why}"))
            return
        if self._draining or any(each.phase != "given up" for each in self.instances):
            return
        cause = f"no engine process is left; the last one died: {why}"
        for assignment in tuple(self._assignments.values()):
            self._dispatcher.fail(assignment, Failed("engine", cause, retriable=True))
        self._failed(cause)

    # --- roles --------------------------------------------------------------------------------------------------

    async def _keep_balance(self, rebalancer: Rebalancer) -> None:
        while True:
            await asyncio.sleep(BALANCE_EVERY)
            counts = [each.role for each in self.instances if each.phase != "given up"]
            split = Split(counts.count("prefill"), counts.count("decode"))
            phases = self._phases.measured
            if phases is None or not (split.prefill and split.decode):
                rebalancer.forget()
                continue
            change = rebalancer.look(split, *phases, time.monotonic())
            if change is not None:
                self._change(change)

    def _change(self, change: Change) -> None:
        """Only what comes from now on: whatever the instance has begun, it finishes."""
        able = [each for each in self.instances if each.role == change.before and each.phase != "given up"]
        chosen = min(able, key=lambda each: len(each.legs))
        chosen.role = change.after
        self._metrics.role_changes.labels(change.after).inc()
        logger.info("instance %d goes over from %s to %s", chosen.number, change.before, change.after)
        self._dispatcher.dispatch()

    # --- the end ------------------------------------------------------------------------------------------------

    def _ended(self, assignment: Assignment) -> None:
        del self._assignments[assignment.key]
        self._note_if_idle()

    def _note_if_idle(self) -> None:
        if self._draining and not self._assignments and not self._idle.done():
            self._idle.set_result(None)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
