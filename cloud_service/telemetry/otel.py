"""Traces through OpenTelemetry (extra `[otel]`), with its semantic conventions for generative AI."""

from __future__ import annotations

import time
from collections.abc import Mapping

from opentelemetry import trace
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from cloud_service.scheduler.jobs import Job
from cloud_service.telemetry.tracing import Moments

#: How long the last spans may take to be sent at the end, in ms.
FLUSH_MS = 3_000

_NANOSECONDS = 1_000_000_000
_W3C = TraceContextTextMapPropagator()

#: Facts of the logs that are attributes of the span, and what they are called there.
_ATTRIBUTES = {
    "prompt_tokens": "gen_ai.usage.input_tokens",
    "output_tokens": "gen_ai.usage.output_tokens",
    "cached_tokens": "gen_ai.usage.cache_read.input_tokens",
    "code": "error.type",
    "caller": "pd.caller",
    "generation": "pd.generation",
}


class OtelTracing:
    """Sends spans to `processor`; where that goes is set by OpenTelemetry's own variables (OTEL_EXPORTER_OTLP_…)."""

    def __init__(self, processor: SpanProcessor) -> None:
        self._provider = TracerProvider(resource=Resource.create({SERVICE_NAME: "pd-cloud"}), shutdown_on_exit=False)
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("pd_device.cloud_service")

    def begin(self, job: Job, model: str) -> OtelTrace:
        parent = _W3C.extract({"traceparent": job.traceparent}) if job.traceparent else None
        attributes: dict[str, str | int] = {
            "gen_ai.operation.name": "text_completion",
            "gen_ai.provider.name": "pd-cloud",
            "gen_ai.request.model": model,
            "gen_ai.request.max_tokens": job.grant,
            "pd.continued_from": len(job.output),
        }
        began = time.time_ns()
        span = self._tracer.start_span(
            "generation", parent, kind=trace.SpanKind.SERVER, attributes=attributes, start_time=began
        )
        return OtelTrace(self._tracer, span, began)

    def close(self) -> None:
        self._provider.force_flush(FLUSH_MS)
        self._provider.shutdown()


class OtelTrace:
    """Its children are made at the end, when it is known how long each phase took: a pass serves many generations, and
    no thread ever is in one of them."""

    def __init__(self, tracer: trace.Tracer, span: trace.Span, began: int) -> None:
        self._tracer = tracer
        self._span = span
        self._began = began
        carrier: dict[str, str] = {}
        _W3C.inject(carrier, trace.set_span_in_context(span))
        self.traceparent = carrier.get("traceparent", "")
        self.trace_id = trace.format_trace_id(span.get_span_context().trace_id)

    def end(self, moments: Moments, facts: Mapping[str, float | str]) -> None:
        first = moments.first_token
        queued = min(moments.queued, moments.ended if first is None else first)
        self._phase("queue", 0.0, queued)
        if first is not None:
            self._phase("prefill", queued, first)
            self._span.add_event("first token", timestamp=self._at(first))
            self._phase("decode", first, moments.ended)
        for name, attribute in _ATTRIBUTES.items():
            if name in facts:
                self._span.set_attribute(attribute, facts[name])
        self._span.set_attribute("gen_ai.response.finish_reasons", [str(facts["reason"])])
        if facts["reason"] == "error":
            self._span.set_status(trace.StatusCode.ERROR, str(facts.get("code", "")))
        self._span.end(self._at(moments.ended))

    def _phase(self, name: str, begin: float, end: float) -> None:
        parent = trace.set_span_in_context(self._span)
        self._tracer.start_span(name, parent, start_time=self._at(begin)).end(self._at(end))

    def _at(self, seconds: float) -> int:
        return self._began + int(seconds * _NANOSECONDS)


def otlp_processor() -> SpanProcessor:
    """Batches of spans over OTLP/HTTP, from a thread of their own."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    return BatchSpanProcessor(OTLPSpanExporter())
