"""One admitted generation, from its ticket to its terminal event: measured, traced and logged.

A generation that is to be answered from what a refinement keeps goes to the backend twice: a look at the whole prompt
that gives no token, and then, once `go_on` says from what, the answer. Its listener sees one generation.
"""

from __future__ import annotations

import asyncio
import dataclasses
import enum
import logging
import math
import time
from dataclasses import dataclass

from cloud_service.auth import Caller
from cloud_service.backend import Backend
from cloud_service.limits import CallerLimits
from cloud_service.metrics import Metrics
from cloud_service.refinement.contract import NO_NEEDS, Span
from cloud_service.scheduler.jobs import (
    Emitted,
    Ended,
    Event,
    Failed,
    Job,
    Late,
    Listener,
    Looked,
    Refusal,
    Refused,
    Ticket,
)
from cloud_service.scheduler.slack import Report, Targets, next_token_needed
from cloud_service.telemetry.tracing import Moments, Trace
from wire_protocol.messages import Usage

logger = logging.getLogger(__name__)

#: A late token is one that comes after the device has run dry, whatever the scheduler aims at.
_NO_TARGETS = Targets(patience=math.inf)


class Phase(enum.Enum):
    """Of a generation that is read twice; one that is not is at its answer from the start."""

    LOOK = "look"
    BETWEEN = "between"
    ANSWER = "answer"


@dataclass(slots=True)
class _Delivery:
    """What its listener got, and when, on the monotonic clock in seconds."""

    given: int = 0
    first_at: float = 0.0
    last_at: float = 0.0
    #: What the device said last of its buffer; None where it says nothing, or shows each token at once.
    report: Report | None = None

    def late(self, now: float) -> bool:
        """Whether tokens that are given now find the device with nothing left to show."""
        if self.report is None:
            return False
        return now > next_token_needed(self.given, self.first_at, self.last_at, self.report, _NO_TARGETS)

    def give(self, now: float, tokens: int) -> bool:
        """Returns whether they were late."""
        late = self.given > 0 and self.late(now)
        if self.given == 0:
            self.first_at = now
        elif late and self.report is not None:
            # It has waited since it ran dry, and goes on from here.
            self.report = Report(now, self.given, self.report.pace, self.report.ready_at)
        self.given += tokens
        self.last_at = now
        return late


class Served:
    """Its listener gets events until the terminal one, or until `abandon`. Belongs to one event loop."""

    def __init__(
        self,
        backend: Backend,
        limits: CallerLimits,
        metrics: Metrics,
        trace: Trace,
        caller: Caller,
        job: Job,
        listener: Listener,
        *,
        rereads: bool = False,
    ) -> None:
        self.queue_ms = 0.0
        self.cached_tokens = 0
        self._backend = backend
        self._limits = limits
        self._metrics = metrics
        self._trace = trace
        self._caller = caller
        self._job = job
        self._listener = listener
        self._key = -1
        self._grant = job.grant
        self._arrived = time.monotonic()
        self._delivery = _Delivery()
        self._open = True
        self._phase = Phase.LOOK if rereads else Phase.ANSWER
        self._stopped = False
        self._looked = Usage()
        #: What follows the look; None while that is not known.
        self._answer: Job | None = None

    @property
    def first_job(self) -> Job:
        """What the backend is asked first."""
        looks = self._phase is Phase.LOOK
        return dataclasses.replace(self._job, grant=0, linger=0.0) if looks else self._job

    @property
    def given(self) -> int:
        """Tokens that its listener got."""
        return self._delivery.given

    def begin(self, ticket: Ticket) -> None:
        self._key = ticket.key
        self.queue_ms = ticket.queue_ms
        self.cached_tokens = ticket.cached_tokens
        self._metrics.grant_tokens.inc(self._grant)

    async def extend(self, grant: int) -> None:
        """Raise the grant; where the caller's tokens of this minute do not reach, nothing changes."""
        more = grant - self._grant
        if more <= 0:
            return
        self._grant = grant
        reached = await self._limits.spend(self._caller, more)
        if reached is not None:
            self._grant -= more
            logger.info("extension refused", extra=self._facts("rate_limit"))
            return
        self._metrics.grant_tokens.inc(more)
        if self._phase is Phase.ANSWER:
            self._backend.extend(self._key, grant)
        elif self._answer is not None:
            self._answer = dataclasses.replace(self._answer, grant=grant)

    def go_on(self, kept: tuple[Span, ...] | None) -> None:
        """Answer from these spans of the prompt's tokens, None for all of it, as soon as it has been looked at. Only
        for one that `rereads`; the second call changes nothing, nor does one for a generation that has ended."""
        if self._phase is Phase.ANSWER or self._answer is not None:
            return
        job = dataclasses.replace(self._job, grant=self._grant, needs=NO_NEEDS, goes_on=True)
        if kept is not None:
            tokens = tuple(token for start, stop in kept for token in job.prompt[start:stop])
            job = dataclasses.replace(job, prompt=tokens, asked=job.prompt)
        self._answer = job
        if self._phase is Phase.BETWEEN:
            self._begin_answer()

    def progress(self, *, shown: int, pace: float, ready_in: float | None) -> None:
        """Where the device stands; see `Backend.progress`."""
        now = time.monotonic()
        ready_at = None if ready_in is None else now + ready_in
        self._delivery.report = Report(now, shown, pace, ready_at) if pace > 0 else None
        self._backend.progress(self._key, shown=shown, pace=pace, ready_in=ready_in)

    def stop(self) -> None:
        """End it; the listener gets `Ended("stopped")` unless it ends otherwise first."""
        self._stopped = True
        if self._phase is Phase.BETWEEN:
            # The backend has nothing of it, and gets nothing. A listener is never called on the stack of who asks.
            self._phase = Phase.ANSWER
            asyncio.get_running_loop().call_soon(self.hear, Ended("stopped", Usage()))
        else:
            self._backend.stop(self._key)

    def abandon(self) -> None:
        """Nobody listens any more. Harmless once it has ended."""
        if self._open:
            self._backend.abandon(self._key)
            self._metrics.finished.labels("abort").inc()
            self._close("abandoned")

    def hear(self, event: Event) -> None:
        """The backend's listener."""
        if not self._open:
            return
        if isinstance(event, Emitted):  # by far the most
            self._measure(event.count)
            self._listener(event)
            return
        metrics = self._metrics
        if isinstance(event, Ended):
            reason = event.reason
            if self._phase is Phase.LOOK and reason == "grant":
                if not self._stopped:
                    self._end_look(event.usage)
                    return
                reason = "stopped"  # the look had ended when that was asked for
            event = Ended(reason, _together(self._looked, event.usage))
        match event:
            case Ended(reason, usage):
                metrics.finished.labels(reason).inc()
                metrics.queue.observe(usage.queue_ms / 1000)
                metrics.prefill.observe(usage.prefill_ms / 1000)
                metrics.decode.observe(usage.decode_ms / 1000)
                metrics.prompt_tokens.inc(usage.prompt_tokens)
                metrics.cached_tokens.inc(usage.cached_tokens)
                self._close(
                    reason,
                    output_tokens=usage.output_tokens,
                    cached_tokens=usage.cached_tokens,
                    queue_ms=usage.queue_ms,
                    prefill_ms=usage.prefill_ms,
                    decode_ms=usage.decode_ms,
                )
            case Late():
                metrics.rejections.labels("deadline").inc()
                self._close("deadline")
            case Refused(refusal):
                metrics.rejections.labels(refusal.reason).inc()
                self._close(refusal.reason)
            case Failed(code):
                metrics.errors.labels(code).inc()
                self._close("error", code=code)
        self._listener(event)

    def _end_look(self, usage: Usage) -> None:
        self._phase, self._looked = Phase.BETWEEN, usage
        if self._answer is None:
            self._listener(Looked())
        else:
            # The backend is about to note that the look has ended: nothing is asked of it meanwhile.
            asyncio.get_running_loop().call_soon(self._begin_answer)

    def _begin_answer(self) -> None:
        if self._answer is None or self._phase is not Phase.BETWEEN or not self._open:
            return
        self._phase = Phase.ANSWER
        answer = self._backend.submit(self._answer, self.hear)
        if isinstance(answer, Refusal):
            self.hear(Refused(answer))
        else:
            self._key = answer.key

    def _measure(self, tokens: int) -> None:
        now = time.monotonic()
        delivery, metrics = self._delivery, self._metrics
        if delivery.given:
            metrics.tokens.give_more(tokens, now - delivery.last_at)
        else:
            metrics.tokens.give(tokens)
            metrics.ttft.observe(now - self._arrived)
        if delivery.give(now, tokens):
            metrics.late_tokens.inc(tokens)

    def _close(self, reason: str, **facts: float | str) -> None:
        self._open = False
        self._limits.release(self._caller)
        first = self._delivery.first_at
        ttft = first - self._arrived if first else None
        facts = {**self._facts(reason), **facts}
        queued = float(facts.get("queue_ms", 0.0)) / 1000
        self._trace.end(Moments(queued, ttft, time.monotonic() - self._arrived), facts)
        logger.info("generation ended", extra={**facts, "ttft_ms": (ttft or 0.0) * 1000, "trace": self._trace.trace_id})

    def _facts(self, reason: str) -> dict[str, float | str]:
        return {
            "generation": self._job.name,
            "caller": self._caller.name,
            "reason": reason,
            "prompt_tokens": len(self._job.prompt),
        }


def _together(look: Usage, answer: Usage) -> Usage:
    """Of one generation that was read twice, or once after an empty look."""
    return Usage(
        prompt_tokens=max(look.prompt_tokens, answer.prompt_tokens),
        cached_tokens=look.cached_tokens if look.prompt_tokens else answer.cached_tokens,
        output_tokens=answer.output_tokens,
        queue_ms=look.queue_ms + answer.queue_ms,
        prefill_ms=look.prefill_ms + answer.prefill_ms,
        decode_ms=look.decode_ms + answer.decode_ms,
    )
