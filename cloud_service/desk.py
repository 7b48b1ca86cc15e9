"""The front desk: every generation, from a device or through the OpenAI twin, is admitted, measured and logged here."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import Literal

from cloud_service.auth import Caller
from cloud_service.limits import CallerLimits
from cloud_service.metrics import Metrics
from cloud_service.scheduler.jobs import Emitted, Ended, Event, Failed, Job, Late, Listener, Refusal
from cloud_service.scheduler.runner import Runner
from model_runtime.core import EngineInfo, Tokenizer

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one generation may ask for at most, in tokens."""

    context_length: int
    #: Of prompt and answer so far together.
    max_prompt_tokens: int
    max_grant: int

    def objection(self, prompt: int, grant: int) -> str | None:
        """Why a prompt (with the answer so far) and a grant are too long; None where they are not."""
        if prompt > self.max_prompt_tokens:
            return f"the prompt has {prompt} tokens; at most {self.max_prompt_tokens} are allowed"
        if grant > self.max_grant:
            return f"{grant} output tokens were asked for; at most {self.max_grant} are allowed"
        if prompt + grant > self.context_length:
            return (
                f"{prompt} prompt tokens and {grant} output tokens make {prompt + grant}, "
                f"and the context holds {self.context_length}"
            )
        return None


@dataclass(frozen=True, slots=True)
class Turned:
    """A generation that was not admitted."""

    reason: Literal["busy", "deadline", "draining", "failed", "rate_limit"]
    message: str
    retry_after_ms: float | None


class Served:
    """A generation that was admitted; its listener gets events until the terminal one, or until `abandon`."""

    def __init__(self, desk: Desk, caller: Caller, job: Job, listener: Listener) -> None:
        self.queue_ms = 0.0
        self._desk = desk
        self._caller = caller
        self._job = job
        self._listener = listener
        self._key = -1
        self._arrived = time.monotonic()
        self._last: float | None = None
        self._ttft = 0.0
        self._open = True

    def extend(self, grant: int) -> None:
        self._desk.runner.extend(self._key, grant)

    def stop(self) -> None:
        """End it; the listener gets `Ended("stopped")` unless it ends otherwise first."""
        self._desk.runner.stop(self._key)

    def abandon(self) -> None:
        """Nobody listens any more. Harmless once it has ended."""
        if self._open:
            self._desk.runner.abandon(self._key)
            self._desk.metrics.finished.labels("abort").inc()
            self._close("abandoned")

    def begin(self, key: int, queue_ms: float) -> None:
        self._key = key
        self.queue_ms = queue_ms

    def hear(self, event: Event) -> None:
        """The runner's listener."""
        if not self._open:
            return
        metrics = self._desk.metrics
        match event:
            case Emitted(_, ids):
                self._measure(len(ids))
            case Ended(reason, usage):
                metrics.finished.labels(reason).inc()
                metrics.queue.observe(usage.queue_ms / 1000)
                metrics.prefill.observe(usage.prefill_ms / 1000)
                metrics.decode.observe(usage.decode_ms / 1000)
                metrics.prompt_tokens.inc(usage.prompt_tokens)
                self._close(
                    reason,
                    output_tokens=usage.output_tokens,
                    queue_ms=usage.queue_ms,
                    prefill_ms=usage.prefill_ms,
                    decode_ms=usage.decode_ms,
                )
            case Late():
                metrics.rejections.labels("deadline").inc()
                self._close("deadline")
            case Failed(code):
                metrics.errors.labels(code).inc()
                self._close("error", code=code)
        self._listener(event)

    def _measure(self, tokens: int) -> None:
        now = time.monotonic()
        metrics = self._desk.metrics
        metrics.generation_tokens.inc(tokens)
        if self._last is None:
            self._ttft = now - self._arrived
            metrics.ttft.observe(self._ttft)
        else:
            metrics.inter_token.observe((now - self._last) / tokens)
        self._last = now

    def _close(self, reason: str, **facts: float | str) -> None:
        self._open = False
        self._desk.limits.release(self._caller)
        logger.info(
            "generation ended",
            extra={
                "generation": self._job.name,
                "caller": self._caller.name,
                "reason": reason,
                "prompt_tokens": len(self._job.prompt),
                "ttft_ms": self._ttft * 1000,
                **facts,
            },
        )


class Desk:
    """Lives on the event loop's thread."""

    def __init__(
        self,
        runner: Runner,
        info: EngineInfo,
        tokenizer: Tokenizer,
        *,
        model_name: str,
        bounds: Bounds,
        limits: CallerLimits,
        metrics: Metrics,
    ) -> None:
        self.runner = runner
        self.info = info
        self.tokenizer = tokenizer
        self.model_name = model_name
        self.bounds = bounds
        self.limits = limits
        self.metrics = metrics

    def submit(self, caller: Caller, job: Job, listener: Listener) -> Served | Turned:
        """Admit a job whose size is within the bounds. `listener` is never called on this call's stack."""
        limit = self.limits.admit(caller, time.monotonic())
        if limit is not None:
            wait_ms = None if limit.retry_after_s is None else limit.retry_after_s * 1000
            return self._turn(caller, job, Turned("rate_limit", limit.message, wait_ms))
        served = Served(self, caller, job, listener)
        answer = self.runner.submit(job, served.hear)
        if isinstance(answer, Refusal):
            self.limits.release(caller)
            return self._turn(caller, job, Turned(answer.reason, answer.message, answer.retry_after_ms))
        served.begin(answer.key, answer.queue_ms)
        self.metrics.grant_tokens.inc(job.grant)
        return served

    def reject(self, caller: Caller, name: str, reason: str) -> None:
        """Note a request that was refused for what it asks."""
        self.metrics.rejections.labels(reason).inc()
        logger.info("generation rejected", extra={"generation": name, "caller": caller.name, "reason": reason})

    def _turn(self, caller: Caller, job: Job, turned: Turned) -> Turned:
        self.reject(caller, job.name, turned.reason)
        return turned
