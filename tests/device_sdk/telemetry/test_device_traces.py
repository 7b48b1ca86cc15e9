"""An app's trace reaches the service, spans say what happened and never what was said, and the service learns how much
it was spared."""

from __future__ import annotations

import logging

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from device_sdk import ConfigurationError, GenerationFailedError, HybridClient, Mode, PaceSettings, SplitSettings
from device_sdk.telemetry.otel import OtelTracing
from model_runtime.testing import Faults, ScriptedEngine, ScriptedTokenizer
from tests.cloud_service.conftest import until
from tests.device_sdk.conftest import PROMPT, per_token

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{SPAN}-01"
SPLIT = SplitSettings(grant=10, max_grant=10, pace=PaceSettings(mode="off"))


def phone(**model: object) -> ScriptedEngine:
    return ScriptedEngine(delay=per_token(0.001), **model)  # type: ignore[arg-type]


@pytest.fixture
def tracing():
    """Where spans go, and what has come there."""
    exporter, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    yield provider, exporter.get_finished_spans
    provider.shutdown()


@pytest.fixture
def logged(caplog):
    """The trace ids in the service's log lines."""
    caplog.set_level(logging.INFO, "cloud_service")
    return lambda: [record.trace for record in caplog.records if getattr(record, "trace", "")]


def saved(running) -> float:
    return running.service.state.desk.metrics.saved_tokens._value.get()


@pytest.mark.parametrize("travel", ["ids", "text"])
async def test_the_service_learns_how_many_tokens_it_was_spared(serve, travel: str) -> None:
    """Also where its own part has ended long before the answer has."""
    running = serve(ScriptedEngine())
    tokenizer = ScriptedTokenizer() if travel == "ids" else ScriptedTokenizer(words=(" pump", " gate"))
    async with HybridClient(device=phone(tokenizer=tokenizer), cloud=running.url, split=SPLIT) as client:
        report = (await client.generate(PROMPT, max_tokens=60)).report
    assert report.cloud_tokens > 0
    assert report.device_tokens > 0
    await until(lambda: saved(running) > 0)
    if travel == "ids":
        # What the cloud gave and the device no longer used is not saved.
        assert 0 <= report.device_tokens - saved(running) <= SPLIT.grant - report.cloud_tokens
    else:
        assert saved(running) == report.device_tokens


async def test_an_answer_that_the_cloud_ends_saves_nothing(serve) -> None:
    running = serve(ScriptedEngine())
    async with HybridClient(cloud=running.url, mode=Mode.ONLY_IN_CLOUD) as client:
        await client.generate(PROMPT, max_tokens=20)
    assert saved(running) == 0


async def test_an_apps_traceparent_is_in_the_services_logs(serve, logged) -> None:
    running = serve(ScriptedEngine())
    async with HybridClient(device=phone(), cloud=running.url, split=SPLIT) as client:
        await client.generate(PROMPT, max_tokens=20, traceparent=PARENT)
    await until(lambda: TRACE in logged())


async def test_the_current_span_is_in_the_services_logs_without_a_word(serve, logged, tracing) -> None:
    provider, _ = tracing
    running = serve(ScriptedEngine())
    async with HybridClient(device=phone(), cloud=running.url, split=SPLIT) as client:
        with provider.get_tracer("app").start_as_current_span("a click") as span:
            await client.generate(PROMPT, max_tokens=20)
    await until(lambda: f"{span.get_span_context().trace_id:032x}" in logged())


async def test_what_is_no_traceparent_is_refused(serve) -> None:
    running = serve(ScriptedEngine())
    async with HybridClient(device=phone(), cloud=running.url) as client:
        with pytest.raises(ConfigurationError, match="W3C Trace Context"):
            await client.generate(PROMPT, traceparent="00-nonsense")


async def test_one_span_for_a_generation_under_the_apps_and_above_the_services(serve, logged, tracing) -> None:
    provider, spans = tracing
    running = serve(ScriptedEngine())
    client = HybridClient(device=phone(), cloud=running.url, split=SPLIT, tracing=OtelTracing(provider))
    async with client:
        answer = await client.generate(PROMPT, max_tokens=40, traceparent=PARENT)
    (span,) = spans()
    attributes, report = dict(span.attributes), answer.report
    assert (span.name, span.kind) == ("chat scripted", SpanKind.CLIENT)
    assert f"{span.parent.span_id:016x}" == SPAN
    assert [event.name for event in span.events] == ["first token", "hand-over"]
    assert span.events[1].attributes["pd.index"] == report.handover_index
    assert attributes["gen_ai.operation.name"] == "chat"
    assert attributes["gen_ai.usage.input_tokens"] == report.prompt_tokens
    assert attributes["gen_ai.usage.output_tokens"] == 40
    assert attributes["gen_ai.response.finish_reasons"] == ("length",)
    assert attributes["gen_ai.response.time_to_first_chunk"] == pytest.approx(report.ttft_ms / 1000)
    assert not [value for value in attributes.values() if isinstance(value, str) and "pump" in value]
    await until(lambda: TRACE in logged())


async def test_a_fall_back_is_an_event_and_a_failure_the_spans_status(serve, tracing) -> None:
    provider, spans = tracing
    broken = ScriptedEngine(faults=Faults(fail_at=0))
    async with HybridClient(
        device=phone(), cloud="ws://127.0.0.1:9", split=SPLIT, tracing=OtelTracing(provider)
    ) as client:
        await client.generate(PROMPT, max_tokens=10)
    running = serve(broken)
    async with HybridClient(cloud=running.url, mode=Mode.ONLY_IN_CLOUD, tracing=OtelTracing(provider)) as client:
        with pytest.raises(GenerationFailedError):
            await client.generate(PROMPT, max_tokens=10)
    rescued, failed = spans()
    assert ("fall-back", "cloud_lost") in [(event.name, event.attributes.get("pd.reason")) for event in rescued.events]
    assert rescued.status.status_code is StatusCode.UNSET
    assert failed.status.status_code is StatusCode.ERROR
    assert failed.attributes["error.type"] == "GenerationFailedError"
    assert failed.name == "chat"
