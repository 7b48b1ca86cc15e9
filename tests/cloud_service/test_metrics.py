"""What `/metrics`, `/health` and `/ready` say."""

from __future__ import annotations

import asyncio
import threading

import pytest
from prometheus_client.parser import text_string_to_metric_families

from cloud_service.app import create_app
from cloud_service.refinement import Refinery
from cloud_service.settings import Settings
from model_runtime.errors import EngineFailedError, ModelNotFoundError
from model_runtime.testing import ScriptedEngine
from wire_protocol.messages import Extend, Generate, Progress, Stop, Tokens

EXPECTED = {
    "pd_num_requests_running",
    "pd_num_requests_waiting",
    "pd_num_requests_lingering",
    "pd_kv_cache_tokens",
    "pd_kv_cache_usage_perc",
    "pd_websocket_connections_active",
    "pd_time_to_first_token_seconds",
    "pd_inter_token_latency_seconds",
    "pd_request_queue_time_seconds",
    "pd_request_prefill_time_seconds",
    "pd_request_decode_time_seconds",
    "pd_prompt_tokens",
    "pd_generation_tokens",
    "pd_grant_tokens",
    "pd_late_tokens",
    "pd_saved_tokens",
    "pd_prefix_cache_tokens",
    "pd_prefix_cache_hits",
    "pd_refinements",
    "pd_refinement_kept_ratio",
    "pd_refinement_seconds",
    "pd_rate_limit_store_errors",
    "pd_request_success",
    "pd_request_errors",
    "pd_admission_rejections",
    "pd_engine_busy_seconds",
    "pd_engine_tokens",
}


def scrape(http, running) -> dict[str, float]:
    """Samples by name, with the value of their label where they have one."""
    status, text = http(running, "/metrics")
    assert status == 200
    return {
        "/".join([sample.name, *(value for label, value in sample.labels.items() if label != "le")]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if not sample.name.endswith(("_bucket", "_created"))
    }


def test_the_names(serve, http):
    running = serve()
    _, text = http(running, "/metrics")
    families = {family.name for family in text_string_to_metric_families(text)}
    assert {name for name in families if not name.endswith("_created")} == EXPECTED


async def test_the_values_after_some_generations(serve, device, http):
    running = serve(ScriptedEngine(answer_length=100_000), max_grant=20)
    async with device(running) as one:
        await one.send(Generate("a", 5, prompt=(1, 2, 3)))
        await one.until_terminal("a")
        await one.send(Generate("b", 10, prompt=(1,) * 7))
        await one.until_terminal("b")
        await one.send(Generate("c", 21, prompt=(1,)))
        await one.until_terminal("c")
        seen = scrape(http, running)
        assert seen["pd_websocket_connections_active"] == 1
    assert seen["pd_prompt_tokens_total"] == 10
    assert seen["pd_generation_tokens_total"] == 15
    assert seen["pd_grant_tokens_total"] == 15
    assert seen["pd_request_success_total/grant"] == 2
    assert seen["pd_admission_rejections_total/too_long"] == 1
    assert seen["pd_time_to_first_token_seconds_count"] == 2
    assert seen["pd_inter_token_latency_seconds_count"] == 13
    assert seen["pd_request_prefill_time_seconds_count"] == 2
    assert seen["pd_engine_tokens_total/prefill"] == 10
    # Each generation's last token goes to the client and not into the engine.
    assert seen["pd_engine_tokens_total/decode"] == 13
    assert 0 < seen["pd_engine_busy_seconds_total"] < 60
    assert seen["pd_num_requests_running"] == 0
    assert seen["pd_kv_cache_tokens"] == 0


async def test_the_gauges_while_something_runs(serve, device, http):
    engine = ScriptedEngine(answer_length=100_000, delay=lambda chunks: 0.005, max_sequences=1)
    running = serve(engine)
    async with device(running) as one:
        await one.send(Generate("a", 4000, prompt=(1,) * 100))
        while not isinstance(await one.receive(), Tokens):
            pass
        await one.send(Generate("b", 4000, prompt=(1, 2)))
        while (await one.receive()).id != "b":
            pass
        seen = scrape(http, running)
        assert (seen["pd_num_requests_running"], seen["pd_num_requests_waiting"]) == (1, 1)
        assert seen["pd_kv_cache_tokens"] >= 100
        assert 0 < seen["pd_kv_cache_usage_perc"] < 1
        await one.send(Stop("a", "taken_over"))
        await one.send(Stop("b", "cancelled"))
        await running.emptied()
    seen = scrape(http, running)
    assert seen["pd_request_success_total/stopped"] == 2
    assert (seen["pd_num_requests_running"], seen["pd_num_requests_waiting"]) == (0, 0)


async def test_a_grant_that_is_held_open_is_neither_running_nor_waiting(serve, device, http):
    running = serve(linger_ms=60_000.0)
    async with device(running) as one:
        await one.send(Generate("a", 1, prompt=(1, 2)))
        while not isinstance(await one.receive(), Tokens):
            pass
        seen = scrape(http, running)
        assert seen["pd_num_requests_lingering"] == 1
        assert seen["pd_num_requests_running"] == 0


async def test_an_extension_is_granted_tokens_too(serve, device, http):
    running = serve(linger_ms=60_000.0)
    async with device(running) as one:
        await one.send(Generate("a", 3, prompt=(1, 2)))
        await one.send(Extend("a", 5))
        await one.send(Extend("a", 4))  # fewer than now
        while not isinstance(message := await one.receive(), Tokens) or message.end < 5:
            pass
        await one.send(Stop("a", "taken_over"))
        await one.until_terminal("a")
    assert scrape(http, running)["pd_grant_tokens_total"] == 5


async def test_tokens_saved_are_what_the_device_says_beyond_what_it_got(serve, device, http):
    running = serve()
    async with device(running) as one:
        await one.send(Generate("a", 5, prompt=(1, 2), output=(7, 7)))
        await one.until_terminal("a")
        # Its answer has ended: 2 tokens before, 5 from the service, 93 of its own. Saying so again changes nothing.
        await one.send(Stop("a", "taken_over", 100))
        await one.send(Stop("a", "taken_over", 100))
        await one.send(Generate("b", 1, prompt=(1, 2)))
        await one.until_terminal("b")
    assert scrape(http, running)["pd_saved_tokens_total"] == 93


async def test_late_tokens_are_those_that_find_the_device_with_nothing_left(serve, device, http):
    # A token every 30 ms, for a device that shows one every 5 ms; then one that holds a minute's worth.
    running = serve(ScriptedEngine(answer_length=100_000, delay=lambda chunks: 0.03))
    async with device(running) as one:
        late = {}
        for name, pace in (("fast", 5.0), ("slow", 60_000.0), ("unpaced", 0.0)):
            await one.send(Generate(name, 40, prompt=(1, 2)))
            while not isinstance(message := await one.receive(), Tokens) or message.end < 2:
                pass
            await one.send(Progress(name, 2, 1, pace))
            await one.until_terminal(name)
            late[name] = scrape(http, running)["pd_late_tokens_total"]
    # How many were on their way already when the report came is the machine's business.
    assert 0 < late["fast"] <= 38
    assert late["slow"] == late["unpaced"] == late["fast"]


def test_apps_in_one_process_do_not_share_metrics(serve, http):
    first, second = serve(), serve()
    first.service.metrics.grant_tokens.inc(5)
    assert scrape(http, first)["pd_grant_tokens_total"] == 5
    assert scrape(http, second)["pd_grant_tokens_total"] == 0


def test_health_and_ready_when_all_is_well(serve, http):
    running = serve(model_name="toy")
    assert http(running, "/health") == (200, '{"status":"ok"}')
    assert http(running, "/ready") == (200, '{"status":"ready","model":"toy"}')


async def ready_of(app) -> tuple[int, bytes]:
    """`/ready`, asked without a server."""
    sent = []
    scope = {"type": "http", "method": "GET", "path": "/ready", "headers": [], "query_string": b""}

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        sent.append(message)

    await app(scope, receive, send)
    return sent[0]["status"], sent[1]["body"]


async def test_ready_is_503_until_the_model_is_loaded():
    app = create_app(Settings(model="m"))
    service = app.state.service
    go_on = threading.Event()
    service.start(lambda cancellation: go_on.wait(10) and (ScriptedEngine(), Refinery()))
    await asyncio.sleep(0)
    assert await ready_of(app) == (503, b'{"status":"loading"}')
    go_on.set()
    await asyncio.wait_for(service.settled.wait(), 5)
    assert (await ready_of(app))[0] == 200
    await service.drain()
    assert await ready_of(app) == (503, b'{"status":"draining"}')


async def test_ready_is_503_where_the_model_cannot_be_loaded():
    app = create_app(Settings(model="m"))
    service = app.state.service

    def load(cancellation):
        raise ModelNotFoundError("no such file")

    service.start(load)
    await asyncio.wait_for(service.settled.wait(), 5)
    assert await ready_of(app) == (503, b'{"status":"broken"}')
    await service.drain()


async def test_a_service_that_goes_away_while_it_loads_frees_what_was_loaded():
    app = create_app(Settings(model="m"))
    engine = ScriptedEngine()

    def load(cancellation):
        assert cancellation.wait(10)
        return engine, Refinery()

    app.state.service.start(load)
    await asyncio.sleep(0)
    await app.state.service.drain()
    with pytest.raises(EngineFailedError):
        engine.open()
