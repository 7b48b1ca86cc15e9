"""The client against a real service over a real WebSocket."""

from __future__ import annotations

import asyncio
import socket

import pytest

from device_sdk import (
    ConfigurationError,
    DeviceError,
    Finished,
    GenerationFailedError,
    HandOver,
    HybridClient,
    Mode,
    PromptTooLongError,
    Source,
    SyncHybridClient,
    Token,
    UnauthorizedError,
)
from device_sdk.events import Cancelled
from model_runtime.core import Cancellation
from model_runtime.errors import EngineFailedError
from model_runtime.loading import LoadProgress
from model_runtime.sampling import SamplingParams
from model_runtime.testing import ScriptedEngine, ScriptedTokenizer
from speed_controller.settings import PaceSettings
from speed_controller.split import SplitSettings
from tests.device_sdk.conftest import PROMPT, per_token

OFF = PaceSettings(mode="off")
SAMPLED = SamplingParams(temperature=0.8, top_p=0.95, seed=7)


def phone(**model: object) -> ScriptedEngine:
    """A device that takes about 0.2 s for the prompt."""
    return ScriptedEngine(delay=per_token(0.001), **model)  # type: ignore[arg-type]


async def until_idle(running) -> None:
    async with asyncio.timeout(2):
        while running.service.state.desk.backend.occupancy().running:  # noqa: ASYNC110 - it lives in another thread
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("params", [SamplingParams(), SAMPLED], ids=["greedy", "sampled"])
@pytest.mark.parametrize("grant", [0, 1, 2, 7, 20, 200])
async def test_a_split_says_what_one_engine_says(serve, own_answer, grant: int, params: SamplingParams) -> None:
    running = serve(ScriptedEngine())
    split = SplitSettings(grant=grant, max_grant=grant, pace=OFF)
    async with HybridClient(device=phone(), cloud=running.url, split=split) as client:
        answer = await client.generate(PROMPT, sampling=params, max_tokens=90)
    whole = own_answer(params, count=90)
    assert answer.token_ids == whole
    assert answer.report.finish_reason == ("eos" if len(whole) < 90 else "length")
    assert answer.report.cloud_tokens + answer.report.device_tokens == len(whole)
    assert answer.report.cloud_tokens <= grant
    assert answer.report.agreement in (1.0, None)
    assert not answer.report.notices


@pytest.mark.parametrize("mode", list(Mode))
async def test_every_mode_gives_the_same_answer_and_names_its_source(serve, own_answer, mode: Mode) -> None:
    running = serve(ScriptedEngine())
    split = SplitSettings(grant=10, pace=OFF)
    async with HybridClient(device=phone(), cloud=running.url, split=split, mode=mode) as client:
        answer = await client.generate(PROMPT)
    sources = {span.source for span in answer.report.spans}
    assert answer.token_ids == own_answer()
    assert (
        sources
        == {
            Mode.SPLIT: {Source.CLOUD, Source.DEVICE},
            Mode.ONLY_ON_DEVICE: {Source.DEVICE},
            Mode.PREFER_ON_DEVICE: {Source.DEVICE},
            Mode.PREFER_IN_CLOUD: {Source.CLOUD},
            Mode.ONLY_IN_CLOUD: {Source.CLOUD},
        }[mode]
    )


async def test_events_come_in_order_with_one_hand_over_and_one_end(serve, own_answer) -> None:
    running = serve(ScriptedEngine())
    split = SplitSettings(grant=10, pace=PaceSettings(pace=0.012, pace_min=0.005, pace_max=0.02))
    async with HybridClient(device=phone(), cloud=running.url, split=split) as client:
        events = [event async for event in client.stream(PROMPT, max_tokens=40)]
    tokens = [event for event in events if isinstance(event, Token)]
    terminal = events[-1]
    assert isinstance(terminal, Finished)
    assert [token.index for token in tokens] == list(range(len(tokens)))
    assert tuple(token.token_id for token in tokens) == terminal.answer.token_ids == own_answer(count=40)
    assert "".join(token.text for token in tokens) == terminal.answer.text
    assert [type(event) for event in events].count(HandOver) == 1
    report = terminal.answer.report
    assert report.handover_index == report.cloud_tokens
    assert [token.source for token in tokens] == [Source.CLOUD] * report.cloud_tokens + [
        Source.DEVICE
    ] * report.device_tokens
    assert report.ttft_ms is not None
    assert report.max_gap_ms is not None
    assert report.cloud_busy_ms is not None
    assert len(report.timeline.releases) == len(report.timeline.arrivals) == len(tokens)
    assert all(a <= b for a, b in zip(report.timeline.arrivals, report.timeline.releases, strict=True))


async def test_different_tokenizers_hand_over_as_text(serve) -> None:
    """The cloud speaks words, the device other pieces: what the user reads is one text without a seam."""
    device_tokenizer = ScriptedTokenizer(words=(" crew", "the", " café"))
    text = "The crew naïvely met 東京 at the café — ✓ grün. " * 3
    cloud_tokenizer = ScriptedTokenizer()
    running = serve(ScriptedEngine(tokenizer=cloud_tokenizer, script=cloud_tokenizer.encode(text)))
    # The device's own model knows the rest of the text from any point that is a token border for it.
    device = ScriptedEngine(tokenizer=device_tokenizer, script=device_tokenizer.encode(text), delay=per_token(0.001))
    for grant in (1, 5, 9, 30):
        split = SplitSettings(grant=grant, pace=OFF)
        async with HybridClient(device=device, cloud=running.url, split=split) as client:
            answer = await client.generate(PROMPT, max_tokens=400)
        assert answer.text == text
        assert {span.source for span in answer.report.spans} == {Source.CLOUD, Source.DEVICE}


async def test_a_device_alone_opens_no_socket(own_answer, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a socket was opened")

    async with HybridClient(device=phone(), cloud="ws://127.0.0.1:9", mode=Mode.ONLY_ON_DEVICE) as client:
        for method in ("__init__", "connect", "connect_ex", "bind", "sendto"):
            monkeypatch.setattr(socket.socket, method, refuse)
        answer = await client.generate(PROMPT, max_tokens=5)
        monkeypatch.undo()
    assert answer.token_ids == own_answer(count=5)


async def test_no_service_at_all_leaves_the_device_and_says_why(own_answer) -> None:
    async with HybridClient(device=phone(), cloud="ws://127.0.0.1:9") as client:
        answer = await client.generate(PROMPT)
    assert answer.token_ids == own_answer()
    assert "no connection to ws://127.0.0.1:9/v1/pd" in answer.report.notices[0]


async def test_only_in_cloud_without_a_service_fails_with_a_typed_error() -> None:
    async with HybridClient(cloud="ws://127.0.0.1:9", mode=Mode.ONLY_IN_CLOUD) as client:
        with pytest.raises(GenerationFailedError, match="no connection") as caught:
            await client.generate(PROMPT)
    assert caught.value.answer.text == ""
    assert caught.value.answer.report.finish_reason == "failed"


async def test_a_wrong_key_is_named_once_and_not_retried(serve) -> None:
    running = serve(ScriptedEngine(), keys={"test": "right-key-0123456789"})
    async with HybridClient(cloud=running.url, api_key="wrong", mode=Mode.ONLY_IN_CLOUD) as client:
        with pytest.raises(GenerationFailedError, match="refused the API key") as caught:
            await client.generate(PROMPT)
    assert len(caught.value.answer.report.notices) == 1
    assert [type(cause) for cause in caught.value.causes] == [UnauthorizedError]


async def test_the_right_key_opens(serve, own_answer) -> None:
    running = serve(ScriptedEngine(), keys={"test": "right-key-0123456789"})
    async with HybridClient(cloud=running.url, api_key="right-key-0123456789", mode=Mode.ONLY_IN_CLOUD) as client:
        answer = await client.generate(PROMPT, max_tokens=4)
    assert answer.token_ids == ()
    assert answer.text == b"".join(map(ScriptedTokenizer().token_bytes, own_answer(count=4))).decode()


async def test_a_stop_string_that_straddles_the_seam(serve, own_answer) -> None:
    pieces = [ScriptedTokenizer().token_bytes(token) for token in own_answer()]
    text = b"".join(pieces).decode()
    seam = len(b"".join(pieces[:6]).decode())
    stop = text[seam - 2 : seam + 2]
    running = serve(ScriptedEngine())
    async with HybridClient(device=phone(), cloud=running.url, split=SplitSettings(grant=6, pace=OFF)) as client:
        answer = await client.generate(PROMPT, stop=[stop])
    assert answer.report.finish_reason == "stop"
    assert answer.text == text[: text.index(stop)]


async def test_several_generations_share_engine_and_link(serve, own_answer) -> None:
    running = serve(ScriptedEngine())
    async with HybridClient(device=phone(), cloud=running.url, split=SplitSettings(grant=5, pace=OFF)) as client:
        answers = await asyncio.gather(*(client.generate(PROMPT, max_tokens=30) for _ in range(5)))
    assert {answer.token_ids for answer in answers} == {own_answer(count=30)}


@pytest.mark.parametrize("after", [0, 1, 4])
async def test_closing_the_stream_cancels_on_both_sides(serve, after: int) -> None:
    """Within a pass the device is free, and the cloud's slot is (its engine does no further pass)."""
    running = serve(ScriptedEngine(delay=per_token(0.002), answer_length=10_000))
    device = phone(answer_length=10_000)
    async with HybridClient(device=device, cloud=running.url, split=SplitSettings(grant=200, pace=OFF)) as client:
        stream = client.stream(PROMPT, max_tokens=400)
        for _ in range(after):
            await anext(stream)
        if after == 0:
            task = asyncio.create_task(anext(stream))
            await asyncio.sleep(0.02)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await stream.aclose()
        await until_idle(running)
        passes = len(running.engine.passes), len(device.passes)
        await asyncio.sleep(0.1)
        assert (len(running.engine.passes), len(device.passes)) == passes
        # Both are still of use.
        assert (await client.generate(PROMPT, max_tokens=3)).report.finish_reason == "length"


async def test_closing_the_client_ends_its_generations(serve) -> None:
    running = serve(ScriptedEngine(delay=per_token(0.002), answer_length=10_000))
    client = HybridClient(device=phone(answer_length=10_000), cloud=running.url)
    async with client:
        stream = client.stream(PROMPT, max_tokens=400)
        first = await anext(stream)
        assert isinstance(first, Token)
        await client.close()
        rest = [event async for event in stream]
    assert isinstance(rest[-1], Cancelled)
    assert rest[-1].answer.report.finish_reason == "cancelled"


async def test_a_cancellation_from_another_thread_ends_the_stream_with_a_report(serve) -> None:
    running = serve(ScriptedEngine(delay=per_token(0.002), answer_length=10_000))
    async with HybridClient(device=phone(answer_length=10_000), cloud=running.url) as client:
        cancellation, events = Cancellation(), []
        async for event in client.stream(PROMPT, max_tokens=400, cancellation=cancellation):
            events.append(event)
            if isinstance(event, Token) and event.index == 2:
                await asyncio.to_thread(cancellation.cancel)
        assert isinstance(events[-1], Cancelled)
        report = events[-1].answer.report
        assert report.finish_reason == "cancelled"
        assert 3 <= report.cloud_tokens + report.device_tokens < 400
        await until_idle(running)
        # Cancelled before it began: nothing but its end.
        [only] = [event async for event in client.stream(PROMPT, max_tokens=400, cancellation=cancellation)]
        assert isinstance(only, Cancelled)


async def test_a_prompt_beyond_the_device_goes_to_the_cloud_or_is_refused(serve, own_answer) -> None:
    running = serve(ScriptedEngine())
    async with HybridClient(
        device=phone(context_length=100), cloud=running.url, split=SplitSettings(pace=OFF)
    ) as client:
        answer = await client.generate(PROMPT, max_tokens=20)
        assert answer.token_ids == own_answer(count=20)
        assert answer.report.device_tokens == 0
        notices = " ".join(answer.report.notices)
        assert "than the 80 tokens that the device's context has room for" in notices
        with pytest.raises(PromptTooLongError, match="shorten the prompt or lower max_tokens"):
            await client.generate(PROMPT, max_tokens=20, mode=Mode.ONLY_ON_DEVICE)


async def test_a_model_that_does_not_load(serve, own_answer, tmp_path) -> None:
    running = serve(ScriptedEngine())
    async with HybridClient(device=tmp_path / "no.gguf", cloud=running.url, split=SplitSettings(pace=OFF)) as client:
        answer = await client.generate(PROMPT)
    assert answer.text == b"".join(map(ScriptedTokenizer().token_bytes, own_answer())).decode()
    assert "device_unusable" in answer.report.notices[0]
    with pytest.raises(DeviceError, match=r"no\.gguf"):
        async with HybridClient(device=tmp_path / "no.gguf", mode=Mode.ONLY_ON_DEVICE):
            pass


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"cloud": "ws://host"}, "SPLIT needs a device model"),
        ({"device": "x.gguf"}, "SPLIT needs a cloud service"),
        ({"device": "x.gguf", "cloud": "ftp://host"}, "no ws:// or wss:// URL"),
    ],
)
def test_a_mode_without_what_it_needs_is_refused(arguments, expected: str) -> None:
    with pytest.raises(ConfigurationError, match=expected):
        HybridClient(**arguments)


def test_the_sync_twin_streams_and_generates(serve, own_answer) -> None:
    running = serve(ScriptedEngine())
    with SyncHybridClient(device=phone(), cloud=running.url, split=SplitSettings(grant=5, pace=OFF)) as client:
        answer = client.generate(PROMPT, max_tokens=20)
        tokens = [event.token_id for event in client.stream(PROMPT, max_tokens=20) if isinstance(event, Token)]
        closed_early = client.stream(PROMPT)
        next(closed_early)
        closed_early.close()
    assert answer.token_ids == tuple(tokens) == own_answer(count=20)


async def test_a_loader_makes_an_engine_that_is_the_client_s_own(own_answer) -> None:
    made: list[ScriptedEngine] = []

    def load(*, cancellation, progress) -> ScriptedEngine:
        progress(LoadProgress("load", 0.5))
        made.append(ScriptedEngine())
        return made[0]

    seen: list[LoadProgress] = []
    client = HybridClient(device=load, mode=Mode.ONLY_ON_DEVICE, on_load=seen.append)
    assert client.device_info is None
    async with client:
        assert client.device_info is made[0].info
        assert (await client.generate(PROMPT, max_tokens=20)).token_ids == own_answer(count=20)
    assert seen == [LoadProgress("load", 0.5)]
    with pytest.raises(EngineFailedError):
        made[0].open()


async def test_without_a_limit_the_answer_may_fill_the_context() -> None:
    engine = ScriptedEngine(context_length=300, answer_length=100_000)
    async with HybridClient(device=engine, mode=Mode.ONLY_ON_DEVICE, split=SplitSettings(pace=OFF)) as client:
        answer = await client.generate("Where is the crew?", max_tokens=None)
    assert answer.report.finish_reason == "length"
    assert answer.report.prompt_tokens + len(answer.token_ids) == 300
