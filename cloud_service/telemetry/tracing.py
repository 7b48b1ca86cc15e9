"""One span tree for each generation: `generation` over `queue`, `prefill` and `decode`. Never any text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from cloud_service.scheduler.jobs import Job
from wire_protocol.trace_context import trace_id


@dataclass(frozen=True, slots=True)
class Moments:
    """When what happened, in seconds after the generation arrived."""

    #: How long it waited for its first pass.
    queued: float
    #: None where there was no token.
    first_token: float | None
    ended: float


class Trace(Protocol):
    """Of one generation."""

    @property
    def trace_id(self) -> str:
        """32 hex digits; empty where nothing is traced."""
        ...

    @property
    def traceparent(self) -> str:
        """What an engine elsewhere hangs its own spans onto; empty where nothing is traced."""
        ...

    def end(self, moments: Moments, facts: Mapping[str, float | str]) -> None:
        """Called once. `facts` as in the logs."""
        ...


class Tracing(Protocol):
    def begin(self, job: Job, model: str) -> Trace:
        """`job` arrived now."""
        ...

    def close(self) -> None:
        """Send what was not sent. Blocks for some seconds at most."""
        ...


@dataclass(frozen=True, slots=True)
class _PassedOn:
    """Spans are not kept here, but whoever sent a context finds it in the logs and in the engine behind."""

    traceparent: str

    @property
    def trace_id(self) -> str:
        return trace_id(self.traceparent)

    def end(self, moments: Moments, facts: Mapping[str, float | str]) -> None:
        pass


class NoTracing:
    """What is used unless traces are asked for."""

    def begin(self, job: Job, model: str) -> Trace:
        return _PassedOn(job.traceparent)

    def close(self) -> None:
        pass
