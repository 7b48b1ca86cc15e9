"""Pausing, the background and heat, with a real service and a real engine thread: no word is lost."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from device_sdk import (
    Cancelled,
    ConfigurationError,
    Finished,
    HybridClient,
    Mode,
    Notice,
    PaceSettings,
    PauseSwitch,
    Situation,
    Source,
    SplitSettings,
    Thermal,
    Token,
)
from model_runtime.testing import ScriptedEngine
from tests.cloud_service.conftest import until
from tests.device_sdk.conftest import PROMPT, per_token

SPLIT = SplitSettings(grant=12, max_grant=12, pace=PaceSettings(mode="off"))


def phone(**model: object) -> ScriptedEngine:
    return ScriptedEngine(delay=per_token(0.002), **model)  # type: ignore[arg-type]


class Phones:
    """A Loader: each load is a new engine."""

    def __init__(self) -> None:
        self.made: list[ScriptedEngine] = []

    def __call__(self, *, cancellation: object, progress: object) -> ScriptedEngine:
        self.made.append(phone())
        return self.made[-1]


async def collect(stream, events: list[object]) -> None:
    async with contextlib.aclosing(stream):
        async for event in stream:
            events.append(event)  # noqa: PERF401 - others look at the list as it grows


def tokens(events: list[object]) -> int:
    return sum(isinstance(event, Token) for event in events)


@pytest.mark.parametrize("mode", [Mode.SPLIT, Mode.ONLY_ON_DEVICE, Mode.ONLY_IN_CLOUD])
@pytest.mark.parametrize("after", [0, 4, 20])
async def test_a_paused_answer_waits_and_is_the_same_in_the_end(serve, own_answer, mode: Mode, after: int) -> None:
    running = serve(ScriptedEngine(delay=lambda _: 0.004))
    switch, events = PauseSwitch(), list[object]()
    async with HybridClient(device=phone(), cloud=running.url, split=SPLIT, mode=mode) as client:
        task = asyncio.create_task(collect(client.stream(PROMPT, max_tokens=60, pause=switch), events))
        await until(lambda: tokens(events) >= after)
        switch.pause()
        await asyncio.sleep(0.1)  # what was under way ends
        held = len(events)
        await until(lambda: not running.service.state.desk.backend.occupancy().running)
        await asyncio.sleep(0.1)
        assert len(events) == held
        switch.resume()
        await task
    assert isinstance(events[-1], Finished)
    assert events[-1].answer.token_ids == own_answer(count=60)
    assert tokens(events) == len(events[-1].answer.token_ids)


async def test_a_paused_answer_can_be_cancelled() -> None:
    switch = PauseSwitch()
    switch.pause()
    async with HybridClient(device=phone(), mode=Mode.ONLY_ON_DEVICE) as client:
        events: list[object] = []
        task = asyncio.create_task(collect(client.stream(PROMPT, pause=switch), events))
        await asyncio.sleep(0.05)
        assert events == []
        await client.close()
        await task
    assert isinstance(events[-1], Cancelled)


@pytest.mark.parametrize("mode", [Mode.SPLIT, Mode.ONLY_ON_DEVICE])
async def test_in_the_background_the_model_is_gone_and_the_answer_goes_on_with_the_next(
    serve, own_answer, mode: Mode
) -> None:
    running = serve(ScriptedEngine(delay=lambda _: 0.004))
    phones, events = Phones(), list[object]()
    async with HybridClient(device=phones, cloud=running.url, split=SPLIT, mode=mode) as client:
        task = asyncio.create_task(collect(client.stream(PROMPT, max_tokens=60), events))
        await until(lambda: tokens(events) >= 20)
        await client.enter_background()
        with pytest.raises(Exception, match="shut down"):
            phones.made[0].open()
        with pytest.raises(ConfigurationError, match="background"):
            await client.generate(PROMPT)
        held = tokens(events)
        assert held < len(own_answer(count=60))
        await client.enter_foreground()
        await task
    assert len(phones.made) == 2
    assert isinstance(events[-1], Finished)
    assert events[-1].answer.token_ids == own_answer(count=60)
    assert any(span.source is Source.DEVICE and span.stop > held for span in events[-1].answer.report.spans)


async def test_an_engine_of_the_apps_own_stays_and_its_cache_goes(own_answer) -> None:
    # Slow enough for the answer to be under way when ten tokens are shown.
    engine, events = ScriptedEngine(delay=per_token(0.008)), list[object]()
    async with HybridClient(device=engine, mode=Mode.ONLY_ON_DEVICE) as client:
        task = asyncio.create_task(collect(client.stream(PROMPT, max_tokens=40), events))
        await until(lambda: tokens(events) >= 10)
        await client.enter_background()
        await client.enter_foreground()
        await task
    assert events[-1].answer.token_ids == own_answer(count=40)
    # Read twice: the first chunk of the prompt comes again.
    first = engine.tokenizer.render_chat([{"role": "user", "content": PROMPT}])[:8]
    assert sum(list(chunks[0].tokens[:8]) == first for chunks in engine.passes) == 2


async def test_a_device_that_grows_hot_leaves_the_rest_to_the_cloud(serve, own_answer) -> None:
    running = serve(ScriptedEngine())
    events: list[object] = []
    async with HybridClient(device=phone(), cloud=running.url, split=SPLIT) as client:
        task = asyncio.create_task(collect(client.stream(PROMPT, max_tokens=200), events))
        await until(lambda: tokens(events) >= 20)
        client.reconsider(Situation(thermal=Thermal.CRITICAL))
        await task
        later = await client.generate(PROMPT, max_tokens=20, situation=Situation(thermal=Thermal.CRITICAL))
        cool = await client.generate(PROMPT, max_tokens=20)
    whole = own_answer(count=200)
    assert events[-1].answer.token_ids == whole
    assert [span.source for span in events[-1].answer.report.spans] == [Source.CLOUD, Source.DEVICE, Source.CLOUD]
    (notice,) = [event for event in events if isinstance(event, Notice)]
    assert (notice.kind, notice.message) == ("device_failed", "the device is hot (CRITICAL)")
    assert (later.report.mode, later.report.device_tokens) == (Mode.PREFER_IN_CLOUD, 0)
    assert later.report.route_reason == "the device is hot (CRITICAL)"
    assert cool.report.device_tokens > 0
