"""Logs name generations and what they cost, and never hold prompts, answers or keys."""

from __future__ import annotations

import json
import logging

import openai
import pytest

from cloud_service.keys.records import digest
from cloud_service.logs import JsonFormatter, TextFormatter
from model_runtime.testing import Faults, ScriptedEngine
from wire_protocol.messages import ChatMessage, Generate, Hello

SECRET, ANSWER, KEY = "tangerine", "marmalade", "correct-horse-battery"


@pytest.fixture
def lines(caplog):
    """What was logged so far, in both formats, tracebacks included; down to debug for our own loggers."""
    caplog.set_level(logging.INFO)
    caplog.set_level(logging.DEBUG, logger="cloud_service")

    def formatted() -> str:
        formats = (TextFormatter(), JsonFormatter())
        return "\n".join(formatter.format(record) for record in caplog.records for formatter in formats)

    return formatted


def engine() -> ScriptedEngine:
    return ScriptedEngine(script=ScriptedEngine().tokenizer.encode(f" {ANSWER}" * 3))


async def test_no_text_and_no_key_in_the_logs_and_metrics_of_what_goes_well(serve, device, lines, http):
    running = serve(engine(), keys={"alice": KEY}, model_name="toy")
    async with device(running, text=True, additional_headers={"authorization": f"Bearer {KEY}"}) as one:
        await one.send(Generate("gen-7", 500, messages=(ChatMessage("user", SECRET),), stop=(f"{ANSWER} {ANSWER}",)))
        await one.until_terminal("gen-7")
    async with openai.AsyncOpenAI(base_url=f"{running.url}/v1", api_key=KEY, max_retries=0) as api:
        await api.chat.completions.create(model="toy", messages=[{"role": "user", "content": SECRET}], user=SECRET)
    text, metrics = lines(), http(running, "/metrics")[1]
    for word in (SECRET, ANSWER, KEY, digest(KEY)):
        assert word not in text
        assert word not in metrics
    assert "/gen-7" in text
    assert "alice" in text
    assert "chatcmpl-" in text


async def test_no_text_in_the_logs_and_metrics_of_what_goes_wrong(serve, device, lines, http):
    running = serve(engine(), model_name="toy")
    async with device(running, text=True) as one:
        await one.send(Generate("a", 5, messages=(ChatMessage("user", SECRET * 5000),)))
        await one.until_terminal("a")
        await one.socket.send(f"garbage {SECRET}".encode())
        await one.receive()
    async with openai.AsyncOpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0) as api:
        for options in ({"model": SECRET}, {"tempo": SECRET}, {"temperature": SECRET}):
            body = {"model": "toy", "messages": [{"role": "user", "content": SECRET}], **options}
            with pytest.raises(openai.APIStatusError):
                await api.post("/chat/completions", body=body, cast_to=object)
        running.engine.faults = Faults(fail_at=len(running.engine.passes))
        with pytest.raises(openai.InternalServerError):
            await api.chat.completions.create(model="toy", messages=[{"role": "user", "content": SECRET}])
    text = lines()
    assert SECRET not in text
    assert SECRET not in http(running, "/metrics")[1]
    assert "too_long" in text
    assert "an injected fault" in text


async def test_a_client_cannot_forge_a_line(serve, device, lines):
    running = serve()
    async with device(running, hello=False) as one:
        await one.send(Hello(1, "evil\n2026-01-01 INFO forged caller=root"))
        await one.receive()
    connected = [line for line in lines().splitlines() if "evil" in line]
    assert len(connected) == 2
    assert not any(line.startswith("2026-01-01 INFO forged") for line in lines().splitlines())


def test_a_json_line_carries_the_facts():
    record = logging.LogRecord("cloud_service.desk", logging.INFO, "", 0, "generation ended", (), None)
    record.generation, record.ttft_ms, record.reason = "c1/g1", 12.3456, "eos"
    line = json.loads(JsonFormatter().format(record))
    assert {key: line[key] for key in ("message", "level", "generation", "ttft_ms", "reason")} == {
        "message": "generation ended",
        "level": "info",
        "generation": "c1/g1",
        "ttft_ms": 12.3,
        "reason": "eos",
    }
