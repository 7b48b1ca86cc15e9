"""One span tree for each generation, under the device's own span; and nothing of what was said."""

from __future__ import annotations

import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from cloud_service.settings import Settings
from cloud_service.telemetry import choose
from model_runtime.testing import Faults, ScriptedEngine
from wire_protocol.messages import ChatMessage, Generate
from wire_protocol.trace_context import trace_id, usable

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{SPAN}-01"
SECRET = "tangerine"


@pytest.fixture
def traced(serve, monkeypatch):
    """`traced(engine, …)`: a service and the spans it has ended."""

    def start(engine=None, **settings):
        exporter = InMemorySpanExporter()
        monkeypatch.setattr("cloud_service.telemetry.otel.otlp_processor", lambda: SimpleSpanProcessor(exporter))
        return serve(engine, traces="otlp", **settings), exporter.get_finished_spans

    return start


async def test_one_tree_under_the_devices_span(traced, device, until):
    running, spans = traced(ScriptedEngine(answer_length=100_000, delay=lambda chunks: 0.002), model_name="toy")
    async with device(running) as one:
        await one.send(Generate("g", 4, prompt=(1, 2, 3), traceparent=PARENT))
        await one.until_terminal("g")
    await until(lambda: len(spans()) == 4)
    by_name = {span.name: span for span in spans()}
    root = by_name["generation"]
    assert {span.context.trace_id for span in spans()} == {int(TRACE, 16)}
    assert root.parent.span_id == int(SPAN, 16)
    phases = [by_name[name] for name in ("queue", "prefill", "decode")]
    assert all(phase.parent.span_id == root.context.span_id for phase in phases)
    # They follow one another without a gap and fill the generation.
    assert [root.start_time, *(phase.end_time for phase in phases)] == [
        *(phase.start_time for phase in phases),
        root.end_time,
    ]
    assert (
        dict(root.attributes).items()
        >= {
            "gen_ai.request.model": "toy",
            "gen_ai.request.max_tokens": 4,
            "gen_ai.usage.input_tokens": 3,
            "gen_ai.usage.output_tokens": 4,
            "gen_ai.response.finish_reasons": ("grant",),
            "pd.generation": "c1/g",
        }.items()
    )
    assert [event.name for event in root.events] == ["first token"]


async def test_refusals_and_failures_are_in_the_tree_too(traced, device, until):
    running, spans = traced(ScriptedEngine(faults=Faults(fail_at=0)), max_generations=1, requests_per_minute=1)
    async with device(running) as one:
        await one.send(Generate("broken", 4, prompt=(1, 2, 3)))
        await one.until_terminal("broken")
        await one.send(Generate("refused", 4, prompt=(1, 2, 3)))
        await one.until_terminal("refused")
    await until(lambda: sum(span.name == "generation" for span in spans()) == 2)
    roots = {span.attributes["pd.generation"]: span for span in spans() if span.name == "generation"}
    assert roots["c1/broken"].status.status_code is StatusCode.ERROR
    assert roots["c1/refused"].attributes["gen_ai.response.finish_reasons"] == ("rate_limit",)
    assert len({span.context.trace_id for span in roots.values()}) == 2


async def test_no_text_is_ever_in_a_span(traced, device, until):
    running, spans = traced(ScriptedEngine(script=ScriptedEngine().tokenizer.encode(SECRET)), model_name="toy")
    async with device(running, text=True) as one:
        await one.send(Generate("g", 50, messages=(ChatMessage("user", SECRET),), stop=(SECRET[4:],)))
        await one.until_terminal("g")
    async with openai.AsyncOpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0) as api:
        chat = [{"role": "user", "content": SECRET}]
        headers = {"traceparent": PARENT}
        await api.chat.completions.create(model="toy", messages=chat, user=SECRET, extra_headers=headers)
    await until(lambda: len(spans()) == 8)
    assert SECRET not in "".join(span.to_json() for span in spans())
    assert sum(span.context.trace_id == int(TRACE, 16) for span in spans()) == 4


async def test_logs_name_the_trace_whether_or_not_spans_are_kept(serve, device, caplog):
    caplog.set_level("INFO", logger="cloud_service")
    async with device(serve()) as one:
        await one.send(Generate("g", 1, prompt=(1, 2), traceparent=PARENT))
        await one.until_terminal("g")
    [ended] = [record for record in caplog.records if record.message == "generation ended"]
    assert ended.trace == TRACE


@given(st.one_of(st.text(), st.from_regex(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}", fullmatch=True)))
def test_what_is_no_context_is_ignored(text):
    zeros = (f"-{'0' * 32}-", f"-{'0' * 16}-")
    good = len(text) == 55 and text[:2] != "ff" and not any(part in text for part in zeros) and text.isascii()
    assert usable(text) in (text, "")
    if usable(text):
        assert good
        assert len(trace_id(text)) == 32


def test_a_context_is_used_and_none_is_none():
    assert usable(PARENT) == PARENT
    assert usable(None) == usable(f"00-{'0' * 32}-{SPAN}-01") == usable(PARENT + "-x") == ""


def test_traces_that_cannot_be_made_are_named_at_the_start(monkeypatch):
    assert Settings(model="m").traces == "off"
    monkeypatch.setitem(__import__("sys").modules, "cloud_service.telemetry.otel", None)
    with pytest.raises(choose.TracingUnavailableError, match=r"pip install 'pd-device\[otel\]'"):
        choose.choose_tracing("otlp")
