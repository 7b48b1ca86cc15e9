"""One span for each generation, and the trace context that travels to the service."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Protocol

from device_sdk.errors import ConfigurationError
from device_sdk.events import Event
from device_sdk.settings import Mode
from model_runtime.sampling import SamplingParams
from wire_protocol.trace_context import usable


@dataclass(frozen=True, slots=True)
class Began:
    """A generation, as it is submitted. `traceparent`: the app's span (W3C Trace Context); empty for none."""

    mode: Mode
    #: Of the device's engine, or as asked of the cloud; empty where neither is known.
    model: str
    prompt_tokens: int
    max_tokens: int
    sampling: SamplingParams
    stop: tuple[str, ...]
    traceparent: str = ""


class Trace(Protocol):
    """Of one generation. Called on the event loop's thread; must not block."""

    @property
    def traceparent(self) -> str:
        """What the service hangs its own spans onto; empty for none."""
        ...

    def see(self, event: Event) -> None:
        """Each event of `HybridClient.stream` when it is there, a terminal one last."""
        ...


class Tracing(Protocol):
    def begin(self, began: Began) -> Trace:
        """Called in the context of whoever asked for the generation."""
        ...


@dataclass(frozen=True, slots=True)
class _PassedOn:
    traceparent: str

    def see(self, event: Event) -> None:
        pass


class NoTracing:
    """What is used unless an app asks for spans: its own current span, if it has one, still reaches the service."""

    def begin(self, began: Began) -> Trace:
        return _PassedOn(began.traceparent or current_traceparent())


def checked(traceparent: str) -> str:
    """Raises ConfigurationError for what is no traceparent; empty stands for none."""
    if traceparent and not usable(traceparent):
        expected = "expected '00-<32 hex digits>-<16 hex digits>-<2 hex digits>' as in W3C Trace Context"
        raise ConfigurationError(f"traceparent={traceparent!r} is none; {expected}")
    return traceparent


def current_traceparent() -> str:
    """Of OpenTelemetry's current span; empty where there is none. An app that has one has imported it already."""
    if "opentelemetry.trace" not in sys.modules:
        return ""
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return carrier.get("traceparent", "")
