"""Which tracing the settings ask for."""

from __future__ import annotations

from typing import Literal

from cloud_service.telemetry.tracing import NoTracing, Tracing


class TracingUnavailableError(Exception):
    """Traces are asked for and what makes them is not installed."""


def choose_tracing(traces: Literal["off", "otlp"]) -> Tracing:
    """Raises TracingUnavailableError."""
    if traces == "off":
        return NoTracing()
    try:
        from cloud_service.telemetry.otel import OtelTracing, otlp_processor

        return OtelTracing(otlp_processor())
    except ImportError as error:
        raise TracingUnavailableError(
            f"traces need {error.name}: `pip install 'pd-device[otel]'`, or leave `traces` off"
        ) from None
