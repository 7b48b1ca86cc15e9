"""The front desk: every generation, from a device or through the OpenAI twin, is admitted, measured and logged here."""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass
from typing import Literal

from cloud_service.auth import Caller
from cloud_service.backend import Backend
from cloud_service.limits import CallerLimits
from cloud_service.metrics import Metrics
from cloud_service.refinement.refinery import Refinery
from cloud_service.scheduler.jobs import Job, Listener, Refusal
from cloud_service.served import Served
from cloud_service.telemetry.tracing import Moments, Trace, Tracing
from model_runtime.core import EngineInfo, Tokenizer
from speed_controller.split_config import Route, SplitConfig

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one generation may ask for at most, in tokens."""

    context_length: int
    #: Of prompt and answer so far together.
    max_prompt_tokens: int
    max_grant: int
    #: What devices were told to ask for; None: whatever they like.
    plan: SplitConfig | None = None

    @property
    def max_extension(self) -> int:
        """The most that a running answer may be extended to. A plan that leaves whole answers to the cloud cannot tell
        those from others by their extension."""
        plan = self.plan
        if plan is None or any(bucket.route is Route.CLOUD for bucket in plan.buckets):
            return self.max_grant
        return min(self.max_grant, plan.max_grant)

    def unplanned(self, prompt: int, grant: int) -> str | None:
        """Why a device should not ask for `grant` tokens with such a prompt; None where the plan allows it."""
        if self.plan is None or self.plan.bucket(prompt).route is Route.CLOUD or grant <= self.plan.max_grant:
            return None
        return (
            f"{grant} output tokens were asked for; for a prompt of {prompt} tokens the split configuration allows "
            f"at most {self.plan.max_grant}"
        )

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


class Desk:
    """Lives on the event loop's thread."""

    def __init__(
        self,
        backend: Backend,
        info: EngineInfo,
        tokenizer: Tokenizer,
        *,
        model_name: str,
        bounds: Bounds,
        limits: CallerLimits,
        metrics: Metrics,
        refinery: Refinery,
        tracing: Tracing,
        shares_prefixes: bool = False,
    ) -> None:
        """`shares_prefixes`: what one caller's prompt left in KV caches may serve another's that begins alike."""
        self.backend = backend
        self.info = info
        self.tokenizer = tokenizer
        self.model_name = model_name
        self.bounds = bounds
        self.limits = limits
        self.metrics = metrics
        self.refinery = refinery
        self.tracing = tracing
        self.shares_prefixes = shares_prefixes

    def bounds_for(self, caller: Caller) -> Bounds:
        """What one generation of `caller` may ask for."""
        most = self.limits.of(caller).max_grant
        return (
            self.bounds
            if most is None
            else dataclasses.replace(self.bounds, max_grant=min(most, self.bounds.max_grant))
        )

    async def submit(self, caller: Caller, job: Job, listener: Listener, *, rereads: bool = False) -> Served | Turned:
        """Admit a job whose size is within the caller's bounds. `listener` is never called on this call's stack. Where
        this call is cancelled, nothing was admitted. `rereads`: it gives no token before `Served.go_on` says which part
        of the prompt to answer from."""
        limit = await self.limits.admit(caller, len(job.prompt) + len(job.output) + job.grant)
        # From here on nothing waits: whoever is cancelled has no generation that nobody would end.
        trace = self.tracing.begin(job, self.model_name)
        if limit is not None:
            wait_ms = None if limit.retry_after_s is None else limit.retry_after_s * 1000
            return self._turn(caller, job, trace, Turned("rate_limit", limit.message, wait_ms))
        scope = "" if self.shares_prefixes else caller.name
        job = dataclasses.replace(job, scope=scope, traceparent=trace.traceparent)
        served = Served(self.backend, self.limits, self.metrics, trace, caller, job, listener, rereads=rereads)
        answer = self.backend.submit(served.first_job, served.hear)
        if isinstance(answer, Refusal):
            self.limits.release(caller)
            return self._turn(caller, job, trace, Turned(answer.reason, answer.message, answer.retry_after_ms))
        served.begin(answer)
        return served

    def reject(self, caller: Caller, name: str, reason: str) -> None:
        """Note a request that was refused for what it asks."""
        self.metrics.rejections.labels(reason).inc()
        logger.info("generation rejected", extra={"generation": name, "caller": caller.name, "reason": reason})

    def _turn(self, caller: Caller, job: Job, trace: Trace, turned: Turned) -> Turned:
        trace.end(Moments(0.0, None, 0.0), {"reason": turned.reason, "generation": job.name, "caller": caller.name})
        self.reject(caller, job.name, turned.reason)
        return turned
