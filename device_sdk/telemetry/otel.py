"""Spans through OpenTelemetry (extra `[otel]`), with its semantic conventions for generative AI clients
(https://github.com/open-telemetry/semantic-conventions-genai, `client-inference`). What has no name there is `pd.…`.
"""

from __future__ import annotations

from opentelemetry import trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from device_sdk.events import Cancelled, Event, Failed, Finished, HandOver, Notice, Refined, Token
from device_sdk.report import Report
from device_sdk.settings import Mode
from device_sdk.telemetry.tracing import Began

_W3C = TraceContextTextMapPropagator()


class OtelTracing:
    """Pass it as `HybridClient(tracing=OtelTracing())`. Spans go to `provider`, by default to the one that the app has
    set for the process; without any, OpenTelemetry drops them."""

    def __init__(self, provider: trace.TracerProvider | None = None) -> None:
        self._tracer = trace.get_tracer("pd_device.device_sdk", tracer_provider=provider)

    def begin(self, began: Began) -> OtelTrace:
        parent = _W3C.extract({"traceparent": began.traceparent}) if began.traceparent else None
        # A model in the same process is an internal call; one that may be elsewhere is a client's.
        kind = trace.SpanKind.INTERNAL if began.mode is Mode.ONLY_ON_DEVICE else trace.SpanKind.CLIENT
        sampling = began.sampling
        attributes: dict[str, str | int | float | bool | list[str]] = {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "pd-device",
            "gen_ai.request.stream": True,
            "gen_ai.request.max_tokens": began.max_tokens,
            "gen_ai.request.temperature": sampling.temperature,
            "gen_ai.request.top_p": sampling.top_p,
            "gen_ai.request.seed": sampling.seed,
            "pd.mode": began.mode.value,
        }
        if began.model:
            attributes["gen_ai.request.model"] = began.model
        if sampling.top_k:
            attributes["gen_ai.request.top_k"] = sampling.top_k
        if began.stop:
            attributes["gen_ai.request.stop_sequences"] = list(began.stop)
        span = self._tracer.start_span(f"chat {began.model}".rstrip(), parent, kind=kind, attributes=attributes)
        return OtelTrace(span)


class OtelTrace:
    def __init__(self, span: trace.Span) -> None:
        self._span = span
        self._shown = False
        carrier: dict[str, str] = {}
        _W3C.inject(carrier, trace.set_span_in_context(span))
        self.traceparent = carrier.get("traceparent", "")

    def see(self, event: Event) -> None:
        match event:
            case Token(source=source) if not self._shown:
                self._shown = True
                self._span.add_event("first token", {"pd.source": source.value})
            case HandOver(index=index):
                self._span.add_event("hand-over", {"pd.index": index})
            case Refined(stage=stage, kept=kept, guard=guard):
                attributes = {"pd.stage": stage, "pd.prompt_kept": kept, "pd.guard": guard.decision}
                self._span.add_event("refinement", attributes)
            case Notice(kind="extended"):
                self._span.add_event("extension")
            case Notice(kind="refinement_ignored"):
                self._span.add_event("refinement ignored")
            case Notice(kind=kind):
                self._span.add_event("fall-back", {"pd.reason": kind})
            case Finished(answer=answer) | Cancelled(answer=answer):
                self._end(answer.report)
            case Failed(error=error):
                self._span.set_attribute("error.type", type(error).__name__)
                self._span.set_status(trace.StatusCode.ERROR)
                self._end(error.answer.report)
            case _:
                pass

    def _end(self, report: Report) -> None:
        values: dict[str, float | int | str | None] = {
            "gen_ai.usage.input_tokens": report.prompt_tokens,
            "gen_ai.usage.output_tokens": report.cloud_tokens + report.device_tokens,
            "gen_ai.response.time_to_first_chunk": None if report.ttft_ms is None else report.ttft_ms / 1000,
            "pd.cloud_tokens": report.cloud_tokens,
            "pd.device_tokens": report.device_tokens,
            "pd.grant": report.grant,
            "pd.handover_index": report.handover_index,
            "pd.agreement": report.agreement,
            "pd.prompt_kept": report.prompt_kept,
            "pd.max_gap_ms": report.max_gap_ms,
        }
        self._span.set_attributes({name: value for name, value in values.items() if value is not None})
        self._span.set_attribute("gen_ai.response.finish_reasons", [report.finish_reason])
        self._span.end()
