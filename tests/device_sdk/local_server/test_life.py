"""Loading, leaving, too many at once, and going away."""

from __future__ import annotations

import asyncio
import json
import threading

import openai
import pytest

from model_runtime.core import Cancellation
from tests.device_sdk.local_server.conftest import MODEL, PATIENCE, says, slow

CHAT = [{"role": "user", "content": "Where is the crew?"}]
ASK = {"model": MODEL, "messages": CHAT}


@pytest.fixture
def held_load(monkeypatch):
    """A load that is at 40% until it is let go, and then gives this engine (or raises this error)."""
    from device_sdk.local_server import loading
    from model_runtime.loading import LoadProgress

    begun, go_on = threading.Event(), threading.Event()
    outcome: list[object] = []

    def load_engine(spec: str, *, cancellation: Cancellation, progress, **_: object):
        progress(LoadProgress("load", 0.4))
        begun.set()
        cancellation.on_cancel(go_on.set)
        assert go_on.wait(PATIENCE)
        if isinstance(outcome[0], Exception):
            raise outcome[0]
        return outcome[0]

    monkeypatch.setattr(loading, "load_engine", load_engine)
    return outcome, begun, go_on


def test_until_the_model_is_loaded_clients_are_told_to_wait(local, held_load) -> None:
    outcome, begun, go_on = held_load
    outcome.append(says("Here."))
    server = local(device="slow-to-load", wait=False)
    assert begun.wait(PATIENCE)
    status, headers, text = server.http("/v1/chat/completions", ASK)
    assert (status, headers["retry-after"]) == (503, "1")
    assert json.loads(text)["error"]["code"] == "loading"
    assert "load: 40%" in text
    status, headers, text = server.http("/ready")
    assert (status, headers["retry-after"]) == (503, "1")
    assert json.loads(text) == {"status": "loading", "stage": "load", "fraction": 0.4}
    assert server.http("/health")[0] == 200
    go_on.set()
    # The client's own retries bring it over the load.
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=9) as api:
        assert api.chat.completions.create(**ASK).choices[0].message.content == "Here."
    assert json.loads(server.http("/ready")[2])["status"] == "ready"


def test_a_model_that_does_not_load_is_said_to_everybody(local, held_load) -> None:
    outcome, _, go_on = held_load
    outcome.append(RuntimeError("no such weights"))
    go_on.set()
    server = local(device="broken")
    for path, body in (("/v1/chat/completions", ASK), ("/v1/models", None)):
        status, _, text = server.http(path, body)
        assert (status, json.loads(text)["error"]["code"]) == (503, "model_not_loaded")
        assert "no such weights" in text
    assert server.http("/health")[0] == 503


def test_a_model_that_does_not_load_leaves_the_cloud_to_answer(local, held_load, serve) -> None:
    outcome, _, go_on = held_load
    outcome.append(RuntimeError("no such weights"))
    go_on.set()
    server = local(device="broken", cloud=serve(says("From afar.")).url)
    with server.client() as api:
        answer = api.chat.completions.create(**ASK, temperature=0)
    assert answer.choices[0].message.content == "From afar."
    assert "no such weights" in answer.pd_device["notices"][0]
    assert "no such weights" in json.loads(server.http("/health")[2])["device_problem"]


def test_a_server_that_loads_can_be_ended(local, held_load) -> None:
    outcome, begun, _ = held_load
    outcome.append(says("Late."))
    local(device="slow-to-load", wait=False)
    assert begun.wait(PATIENCE)


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_ends_its_answer(local, stream: bool) -> None:
    engine = slow()
    server = local(engine)
    before = len(engine.passes)
    body = json.dumps({**ASK, "stream": stream}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n\r\n".encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(head + body)
    if stream:
        await reader.readuntil(b"data: ")
    else:
        async with asyncio.timeout(PATIENCE):
            while len(engine.passes) < before + 3:  # noqa: ASYNC110 - it runs in another thread
                await asyncio.sleep(0.005)
    writer.close()
    await server.until_idle()
    assert len(engine.passes) < 4000


async def test_one_too_many_is_429_with_retry_after(local) -> None:
    server = local(slow(), max_generations=1)
    async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as api:
        first = await api.chat.completions.create(**ASK, stream=True)
        await anext(aiter(first))
        with pytest.raises(openai.RateLimitError) as refused:
            await api.chat.completions.create(**ASK)
        assert int(refused.value.response.headers["retry-after"]) >= 1
        assert refused.value.code == "rate_limit_exceeded"
        await first.close()
        await server.until_idle()
        await api.chat.completions.create(**ASK, max_tokens=2)


async def test_several_at_once_share_the_engine(local) -> None:
    server = local(slow(), max_generations=3)
    async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as api:
        asked = [api.chat.completions.create(**ASK, temperature=0, max_tokens=10) for _ in range(3)]
        answers = await asyncio.gather(*asked)
    assert len({answer.choices[0].message.content for answer in answers}) == 1


async def test_what_runs_may_finish_and_nothing_new_begins(local) -> None:
    server = local(slow(), drain_ms=20_000.0)
    async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as api:
        stream = aiter(await api.chat.completions.create(**ASK, stream=True, max_tokens=60))
        await anext(stream)
        server.terminate()
        async with asyncio.timeout(PATIENCE):
            while server.http("/ready")[0] != 503:  # noqa: ASYNC110 - it lives in another thread
                await asyncio.sleep(0.005)
        with pytest.raises(openai.InternalServerError) as refused:
            await api.chat.completions.create(**ASK)
        assert refused.value.code == "shutting_down"
        reasons = [chunk.choices[0].finish_reason async for chunk in stream]
    assert reasons[-1] == "length"


@pytest.mark.parametrize("twice", [False, True])
async def test_what_does_not_finish_in_time_ends_in_an_error(local, twice: bool) -> None:
    server = local(slow(context_length=100_000), drain_ms=60_000.0 if twice else 50.0)
    async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as api:
        stream = aiter(await api.chat.completions.create(**ASK, stream=True))
        await anext(stream)
        server.terminate()
        if twice:
            server.terminate()
        with pytest.raises(openai.APIError, match="shutting down") as failed:
            async with asyncio.timeout(PATIENCE):
                _ = [chunk async for chunk in stream]
    assert failed.value.code == "shutting_down"
