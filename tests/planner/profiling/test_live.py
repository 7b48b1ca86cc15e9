"""A live service and the link to it, measured over real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from device_sdk.testing import LinkProfile, LinkProxy
from model_runtime.testing import ScriptedEngine
from planner.errors import MeasurementError
from planner.profiling.cloud import CloudPlan, measure_cloud
from planner.profiling.device import Provenance
from planner.profiling.link import measure_link
from planner.profiling.live import connected
from tests.cloud_service.conftest import serve

__all__ = ["serve"]

WHAT = Provenance("live", "a service under test", "2026-11-21", "a test", "pd-plan profile")
PLAN = CloudPlan(words=(20, 80), concurrency=(1, 3), grant=6, repeats=2)


def delay(chunks: Any) -> float:
    """A pass of 2 ms, a tenth more for each further sequence that decodes, and 0.1 ms for each prompt token."""
    prompt = sum(len(chunk.tokens) for chunk in chunks if len(chunk.tokens) > 1)
    decodes = sum(len(chunk.tokens) == 1 for chunk in chunks)
    return 0.002 * (1 + 0.1 * max(0, decodes - 1)) + 0.0001 * prompt


async def test_a_service_is_measured_as_it_says_itself(serve: Callable[..., Any]) -> None:
    running = serve(ScriptedEngine(delay=delay, answer_length=100_000), prefix_cache="off")
    async with connected(running.url) as live:
        found = await measure_cloud(live, PLAN, WHAT)
    assert found.kind == "datacentre"
    assert found.measured is not None
    assert found.measured.model == "scripted"
    # A busy machine is slower than the engine says it is, never faster.
    assert all(rate < 11_000 for _, rate in found.prefill_tokens_per_s)
    assert all(ms > 1.9 for _, ms in found.decode_ms)
    assert found.batch_share is not None
    counts = {row[0] for row in found.measured.points["concurrency_then_ttft_ms_then_ms_per_token"]}
    assert counts == {1, 3}


async def test_the_link_is_told_from_the_service(serve: Callable[..., Any]) -> None:
    running = serve(ScriptedEngine())
    profile = LinkProfile("emulated", rtt_ms=40.0, jitter_ms=0.0, up_kbps=8_000.0, down_kbps=50_000.0)
    async with (
        LinkProxy(running.host, running.port, profile, seed=1) as proxy,
        connected(f"ws://127.0.0.1:{proxy.port}") as live,
    ):
        found = await measure_link(live, WHAT, pings=8)
    assert found.rtt_ms >= 40
    assert found.up_kbps is not None
    assert found.up_kbps < 9_000
    assert found.down_kbps is None
    assert any(text.startswith("down_kbps") for text in found.approximate)
    assert 0 <= found.loss < 0.1
    assert found.measured is not None
    assert len(found.measured.points["round_trip_ms"]) == 8


async def test_what_a_service_refuses_is_said(serve: Callable[..., Any]) -> None:
    running = serve(ScriptedEngine(), max_prompt_tokens=10)
    async with connected(running.url) as live:
        with pytest.raises(MeasurementError, match=r"rejected a request \(too_long\)"):
            await measure_cloud(live, PLAN, WHAT)
        with pytest.raises(MeasurementError, match="at least 5 are needed"):
            await measure_link(live, WHAT, pings=2)


async def test_a_connection_that_is_lost_is_a_failed_measurement(serve: Callable[..., Any]) -> None:
    running = serve(ScriptedEngine(delay=lambda _: 0.05))
    async with connected(running.url) as live:
        asking = asyncio.create_task(live.ask("tell me all", 4000))
        await asyncio.sleep(0.1)
        await live.connection.close()
        with pytest.raises(MeasurementError, match="the connection failed"):
            await asking
        with pytest.raises(MeasurementError, match="does not answer pings"):
            await live.round_trip()
