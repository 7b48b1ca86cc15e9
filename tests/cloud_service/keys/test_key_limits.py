"""What a key may use, over a live service; and that revoking it shuts the door."""

from __future__ import annotations

import asyncio
from datetime import date

import openai
import pytest

from cloud_service.keys import ring
from cloud_service.keys.file import add_key, revoke_key
from cloud_service.keys.records import KeyLimits
from wire_protocol.close_codes import CloseCode
from wire_protocol.messages import Error, Extend, Generate, Rejected, Tokens

TODAY = date(2026, 11, 21)


@pytest.fixture
def keyed(serve, device, tmp_path):
    """`keyed(limits, **settings)`: a service with one key of these limits, and how to connect with it."""
    path = tmp_path / "keys.toml"

    def start(limits: KeyLimits, **settings):
        key = add_key(path, "alice", limits, TODAY)
        running = serve(key_file=path, model_name="toy", **settings)
        return running, lambda: device(running, additional_headers={"authorization": f"Bearer {key}"}), key

    return start


async def test_welcome_and_every_request_know_the_keys_own_bounds(keyed):
    running, connect, key = keyed(KeyLimits(max_grant=8, max_generations=1), max_grant=100, linger_ms=60_000.0)
    async with connect() as one:
        await one.send(Generate("a", 9, prompt=(1, 2)))
        [refused] = await one.until_terminal("a")
        assert isinstance(refused, Rejected)
        assert (refused.reason, "at most 8" in refused.message) == ("too_long", True)
        await one.send(Generate("b", 8, prompt=(1, 2)))
        while not isinstance(await one.receive(), Tokens):
            pass
        await one.send(Generate("c", 1, prompt=(1, 2)))
        while not isinstance(refused := await one.receive(), Rejected):
            pass
        assert (refused.id, refused.reason) == ("c", "rate_limit")
        await one.send(Extend("b", 9))
        while not isinstance(refused := await one.receive(), Error):
            pass
        assert (refused.id, refused.code) == ("b", "bad_request")
    async with openai.AsyncOpenAI(base_url=f"{running.url}/v1", api_key=key, max_retries=0) as api:
        chat = [{"role": "user", "content": "x"}]
        with pytest.raises(openai.BadRequestError, match="at most 8"):
            await api.chat.completions.create(model="toy", messages=chat, max_tokens=9)


async def test_welcome_names_the_keys_own_limits(keyed, device):
    running, _, key = keyed(KeyLimits(max_grant=8, max_generations=3), max_grant=100)
    headers = {"authorization": f"Bearer {key}"}
    async with device(running, hello=False, additional_headers=headers) as one:
        limits = (await one.hello(running.engine)).limits
    assert (limits.max_grant, limits.max_generations) == (8, 3)


async def test_tokens_of_a_minute_are_prompt_and_grant_and_extensions(keyed, http):
    running, connect, _ = keyed(KeyLimits(tokens_per_minute=100), linger_ms=300.0)
    async with connect() as one:
        await one.send(Generate("a", 20, prompt=(1,) * 40))
        while not isinstance(await one.receive(), Tokens):
            pass
        await one.send(Extend("a", 70))  # 50 more than there are
        ended = (await one.until_terminal("a"))[-1]
        assert (ended.reason, ended.usage.output_tokens) == ("grant", 20)
        await one.send(Generate("b", 20, prompt=(1,) * 40))
        [refused] = await one.until_terminal("b")
        assert refused.reason == "rate_limit"
        assert 0 < refused.retry_after_ms <= 120_000
        await one.send(Generate("c", 80, prompt=(1,) * 40))
        [refused] = await one.until_terminal("c")
        assert (refused.reason, refused.retry_after_ms) == ("rate_limit", None), "it could never pass"
        await one.send(Generate("d", 20, prompt=(1,) * 20))
        assert (await one.until_terminal("d"))[-1].reason == "grant"
    assert 'pd_admission_rejections_total{reason="rate_limit"} 2.0' in http(running, "/metrics")[1]


async def test_a_revoked_key_closes_its_connection_with_the_next_request(keyed, monkeypatch, tmp_path):
    monkeypatch.setattr(ring, "REFRESH", 0.0)
    _, connect, _ = keyed(KeyLimits())
    async with connect() as one:
        await one.send(Generate("a", 1, prompt=(1, 2)))
        await one.until_terminal("a")
        revoke_key(tmp_path / "keys.toml", "alice")
        await one.send(Generate("b", 1, prompt=(1, 2)))
        messages, code = await one.until_closed()
    assert code == CloseCode.UNAUTHORISED
    assert "revoked" in messages[-1].message


async def test_a_service_that_goes_while_a_request_is_counted_leaves_nothing(keyed, monkeypatch):
    running, connect, _ = keyed(KeyLimits(requests_per_minute=1000), drain_ms=0.0)
    limits = running.service._limits
    entered, loop = asyncio.Event(), asyncio.get_running_loop()

    async def stuck(*_):
        loop.call_soon_threadsafe(entered.set)
        await asyncio.sleep(3600)

    monkeypatch.setattr(limits, "_rates", stuck)
    async with connect() as one:
        await one.send(Generate("a", 1, prompt=(1, 2)))
        async with asyncio.timeout(10):
            await entered.wait()
        running.terminate()
        assert (await one.until_closed())[1] == CloseCode.GOING_AWAY
    assert sum(limits._running.values()) == 0
