"""What servers elsewhere do wrong, and what the device sees of it: one terminal message, and as many tokens as there
could be."""

from __future__ import annotations

import asyncio
import json

import openai
import pytest

from cloud_service.upstream import pool
from model_runtime.tokenizers import load_tokenizer
from wire_protocol.messages import (
    Accepted,
    ChatMessage,
    Error,
    Extend,
    Finished,
    Generate,
    Refine,
    Refinement,
    Rejected,
    Sampling,
    Stop,
    Tokens,
)

from .conftest import Exchange, counting

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def ids(messages) -> list[int]:
    return [token for message in messages if isinstance(message, Tokens) for token in message.ids]


async def refuse(exchange: Exchange) -> None:
    await exchange.head("503 Service Unavailable", "application/json", "retry-after: 7")


async def too_many(exchange: Exchange) -> None:
    await exchange.head("429 Too Many Requests", "application/json")


async def reset(exchange: Exchange) -> None:
    exchange.writer.transport.abort()


async def hang(exchange: Exchange) -> None:
    await exchange.head()
    await asyncio.sleep(3600)


async def slowly(exchange: Exchange) -> None:
    await exchange.head()
    await exchange.pieces(range(10, 190), None, pause=0.01)


def after(count: int, last):
    """Begins as it should, then does something else."""

    async def script(exchange: Exchange) -> None:
        await exchange.head()
        begin = len(exchange.body["prompt"])
        await exchange.pieces(range(begin, begin + count), None)
        await last(exchange)

    return script


async def dies(exchange: Exchange) -> None:
    """As vLLM does when a worker dies: an error event, then the end, with status 200."""
    await exchange.event({"error": {"message": "EngineCore encountered an issue", "type": "InternalServerError"}})
    await exchange.event("[DONE]")


async def ends_early(exchange: Exchange) -> None:
    """The connection closes without `[DONE]`."""


async def garbage(exchange: Exchange) -> None:
    await exchange.event("{not json")


async def test_ids_travel_in_and_out_with_what_was_asked(scripted, gateway, client):
    server = scripted()
    running = gateway([server.url])
    async with client(running) as one:
        assert one.welcome.travel == "ids"
        assert one.welcome.model == "toy"
        sampling = Sampling(temperature=0.5, top_k=40, min_p=0.05, seed=9)
        request = Generate("g", 6, prompt=(1, 2, 3, 4), output=(5,), sampling=sampling, traceparent=PARENT)
        await one.send(request)
        messages = await one.until_terminal("g")
    assert isinstance(messages[0], Accepted)
    assert ids(messages) == [5, 6, 7, 8, 9, 10]
    assert (messages[-1].reason, messages[-1].usage.output_tokens, messages[-1].usage.cached_tokens) == ("grant", 6, 3)
    [body] = server.bodies
    assert (body["prompt"], body["max_tokens"], body["stream"]) == ([1, 2, 3, 4, 5], 6, True)
    assert (body["temperature"], body["top_k"], body["min_p"]) == (0.5, 40, 0.05)
    assert body["priority"] > 0
    assert server.exchanges[-1].headers["traceparent"] == PARENT


async def test_what_is_read_twice_goes_to_the_server_once_and_shortened(scripted, gateway, client, tiny_model):
    """The first reading is the gateway's own, of whatever scores there."""
    server = scripted()
    running = gateway([server.url], refine="head-tail", linger_ms=5_000.0)
    prompt = tuple(load_tokenizer(tiny_model("llama")).encode("".join(f"ab cd {number}.\n" for number in range(8))))
    async with client(running) as one:
        await one.send(Generate("g", 3, prompt=prompt, refine=Refine(0.5, reread=True)))
        heard = [await one.receive() for _ in range(5)]
        await one.send(Stop("g", "taken_over"))
        last = await one.receive()
    assert [type(message) for message in heard] == [Accepted, Refinement, Tokens, Tokens, Tokens]
    kept = [token for start, stop in heard[1].keep for token in prompt[start:stop]]
    assert heard[1].reread
    assert 0 < len(kept) < len(prompt)
    [body] = server.bodies
    assert (body["prompt"], body["max_tokens"]) == (kept, 3)
    assert ids(heard) == [len(kept) + place for place in range(3)]
    assert (last.usage.prompt_tokens, last.usage.output_tokens) == (len(prompt), 3)


@pytest.mark.parametrize("fault", [refuse, too_many, reset])
async def test_what_one_rejects_the_next_one_takes(scripted, gateway, client, fault):
    first, second = scripted(), scripted()
    first.scripts = [fault]
    running = gateway([first.url, second.url])
    async with client(running) as one:
        for name in ("a", "b"):
            await one.send(Generate(name, 3, prompt=(1, 2)))
            messages = await one.until_terminal(name)
            assert ids(messages) == [2, 3, 4]
            assert messages[-1].reason == "grant"


async def test_what_all_reject_is_rejected_with_the_shortest_wait(scripted, gateway, client, http):
    servers = [scripted(), scripted()]
    for server in servers:
        server.scripts = [refuse]
    running = gateway([server.url for server in servers], model_name="toy")
    async with client(running) as one:
        await one.send(Generate("a", 3, prompt=(1, 2)))
        refused = (await one.until_terminal("a"))[-1]
    assert isinstance(refused, Rejected)
    assert (refused.reason, refused.retry_after_ms) == ("busy", 7000)
    body = json.dumps({"model": "toy", "messages": [{"role": "user", "content": "x"}], "max_tokens": 3}).encode()
    assert http(running, "/v1/chat/completions", body)[0] == 503
    assert 'pd_admission_rejections_total{reason="busy"} 2.0' in http(running, "/metrics")[1]


@pytest.mark.parametrize("fault", [dies, ends_early, garbage, reset])
async def test_where_one_fails_in_the_middle_another_goes_on(scripted, gateway, client, fault):
    first, second = scripted(), scripted()
    first.scripts = second.scripts = [after(2, fault), counting]  # whichever is asked first
    running = gateway([first.url, second.url])
    async with client(running) as one:
        await one.send(Generate("a", 5, prompt=(1, 2)))
        messages = await one.until_terminal("a")
    assert ids(messages) == [2, 3, 4, 5, 6]
    assert messages[-1].reason == "grant"


@pytest.mark.parametrize("fault", [dies, ends_early, garbage, reset])
async def test_where_nobody_is_left_to_go_on_the_device_is_told_once(scripted, gateway, client, fault):
    server = scripted()
    server.scripts = [after(2, fault)]
    running = gateway([server.url])
    async with client(running) as one:
        await one.send(Generate("a", 5, prompt=(1, 2)))
        messages = await one.until_terminal("a")
    assert ids(messages) == [2, 3]
    assert isinstance(messages[-1], Error)
    assert (messages[-1].code, messages[-1].retriable) == ("engine", True)


async def test_a_reset_of_a_kept_connection_is_tried_once_more(scripted, gateway, client):
    server = scripted()
    server.scripts = [reset, counting]
    running = gateway([server.url])
    async with client(running) as one:
        await one.send(Generate("a", 2, prompt=(1, 2)))
        assert (await one.until_terminal("a"))[-1].reason == "grant"
    assert len(server.bodies) == 2


@pytest.mark.parametrize("leave", ["stop", "close"])
async def test_leaving_closes_the_stream_at_once(scripted, gateway, client, until, leave):
    server = scripted()
    server.scripts = [slowly]
    running = gateway([server.url])
    async with client(running) as one:
        await one.send(Generate("a", 180, prompt=(1,) * 10))
        while not isinstance(await one.receive(), Tokens):
            pass
        if leave == "stop":
            await one.send(Stop("a", "taken_over"))
            ended = (await one.until_terminal("a"))[-1]
            assert (ended.reason, 0 < ended.usage.output_tokens < 180) == ("stopped", True)
    assert await asyncio.to_thread(server.exchanges[-1].closed.wait, 10)
    await until(lambda: running.service.state.desk.backend.occupancy().running == 0)


async def test_a_grant_is_extended_by_another_request_and_held_open_for_it(scripted, gateway, client):
    server = scripted()
    running = gateway([server.url], linger_ms=60_000.0)
    async with client(running) as one:
        await one.send(Generate("a", 2, prompt=(1, 2)))
        got: list[int] = []
        while len(got) < 2:
            got += ids([await one.receive()])
        await one.send(Extend("a", 5))
        while len(got) < 5:
            got += ids([await one.receive()])
        await one.send(Stop("a", "taken_over"))
        assert (await one.until_terminal("a"))[-1].usage.output_tokens == 5
    assert got == [2, 3, 4, 5, 6]
    assert [(body["prompt"], body["max_tokens"]) for body in server.bodies] == [([1, 2], 2), ([1, 2, 2, 3], 3)]
    assert server.bodies[0]["seed"] != server.bodies[1]["seed"]


async def test_an_end_before_the_grant_is_the_end_of_the_context(scripted, gateway, client):
    async def clips(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.pieces([7, 8], "length")
        await exchange.end()

    server = scripted()
    server.scripts = [clips]
    async with client(gateway([server.url])) as one:
        await one.send(Generate("a", 5, prompt=(1, 2)))
        assert (await one.until_terminal("a"))[-1].reason == "context"


async def test_the_answers_end_is_not_part_of_it(scripted, gateway, client, tiny_model):
    from model_runtime.tokenizers import load_tokenizer

    eos = min(load_tokenizer(tiny_model("llama")).eos_ids)

    async def says_it_all(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.pieces([7, 8, eos], "stop")
        await exchange.end()

    server = scripted()
    server.scripts = [says_it_all]
    async with client(gateway([server.url])) as one:
        await one.send(Generate("a", 5, prompt=(1, 2)))
        messages = await one.until_terminal("a")
    assert (ids(messages), messages[-1].reason) == ([7, 8], "eos")


async def test_a_server_that_gives_more_than_was_asked_is_cut(scripted, gateway, client):
    async def generous(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.event({"choices": [{"text": "", "token_ids": list(range(10, 30)), "finish_reason": "length"}]})
        await exchange.end()

    server = scripted()
    server.scripts = [generous]
    async with client(gateway([server.url])) as one:
        await one.send(Generate("a", 3, prompt=(1, 2)))
        messages = await one.until_terminal("a")
    assert (ids(messages), messages[-1].reason) == ([10, 11, 12], "grant")


async def test_a_first_token_that_comes_too_late_is_not_waited_for(scripted, gateway, client):
    server = scripted()
    server.scripts = [hang]
    async with client(gateway([server.url])) as one:
        await one.send(Generate("a", 3, prompt=(1, 2), deadline_ms=200.0))
        refused = (await one.until_terminal("a"))[-1]
    assert (type(refused), refused.reason) == (Rejected, "deadline")
    assert await asyncio.to_thread(server.exchanges[-1].closed.wait, 10)


async def test_a_server_that_falls_silent_is_given_up(scripted, gateway, client):
    async def silent(exchange: Exchange) -> None:
        await asyncio.sleep(3600)

    server = scripted()
    server.scripts = [after(1, silent)]
    async with client(gateway([server.url], upstream_timeout_ms=300.0)) as one:
        await one.send(Generate("a", 3, prompt=(1, 2)))
        assert (await one.until_terminal("a"))[-1].code == "engine"


async def test_a_refused_request_is_the_callers_fault_and_quotes_nothing(scripted, gateway, client):
    async def quotes(exchange: Exchange) -> None:
        await exchange.head("400 Bad Request", "application/json")
        exchange.writer.write(b'{"error": {"message": "bad prompt: tangerine"}}')

    server = scripted()
    server.scripts = [quotes]
    async with client(gateway([server.url])) as one:
        await one.send(Generate("a", 3, prompt=(1, 2)))
        refused = (await one.until_terminal("a"))[-1]
    assert (refused.code, refused.retriable) == ("bad_request", False)
    assert "tangerine" not in refused.message


async def test_what_is_not_offered_is_refused_and_named(scripted, gateway, client, caplog):
    caplog.set_level("INFO", logger="cloud_service")
    server = scripted()
    server.owner = "somebody"
    async with client(gateway([server.url])) as one:
        await one.send(Generate("a", 3, prompt=(1, 2), sampling=Sampling(temperature=1.0, min_p=0.1)))
        refused = (await one.until_terminal("a"))[-1]
        await one.send(Generate("b", 3, prompt=(1, 2), sampling=Sampling(temperature=1.0)))
        assert (await one.until_terminal("b"))[-1].reason == "grant"
    assert refused.code == "bad_request"
    assert "`min_p` is not offered" in refused.message
    assert "priority" not in server.bodies[0]
    named = [record.getMessage() for record in caplog.records if "does not offer" in record.getMessage()]
    assert any("`min_p`" in line for line in named)
    assert any("priority" in line for line in named)


async def test_stop_strings_are_the_gateways_work(scripted, gateway, client, tiny_model):
    from model_runtime.tokenizers import load_tokenizer

    said = load_tokenizer(tiny_model("llama")).encode("one, two, three")

    async def says(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.pieces(said, "stop")
        await exchange.end()

    server = scripted()
    server.scripts = [says]
    async with client(gateway([server.url]), text=True) as one:
        await one.send(Generate("a", 50, messages=(ChatMessage("user", "count"),), stop=(", th",)))
        messages = await one.until_terminal("a")
    assert b"".join(message.data for message in messages if isinstance(message, Tokens)) == b"one, two"
    assert messages[-1].reason == "stop"


async def text_only(exchange: Exchange) -> None:
    """As llama-cpp-python's: no ids in, no ids out, a piece of text for each token, no usage."""
    if not isinstance(exchange.body["prompt"], str):
        await exchange.head("500 Internal Server Error", "application/json")
        return
    if not exchange.body.get("stream"):
        await exchange.head("200 OK", "application/json")
        exchange.writer.write(b'{"usage": {"prompt_tokens": 5}}')
        return
    await exchange.head()
    for place in range(exchange.body["max_tokens"]):
        await exchange.event({"choices": [{"text": f" {place}", "finish_reason": None}]})
    await exchange.event({"choices": [{"text": "", "finish_reason": "length"}]})
    await exchange.event("[DONE]")


async def test_text_alone_is_extended_and_continued_by_its_text(scripted, gateway, client):
    server = scripted()
    server.owner, server.probed, server.scripts = "me", text_only, [text_only]
    running = gateway([server.url], linger_ms=60_000.0)
    chat = (ChatMessage("user", "count"),)
    async with client(running) as one:
        assert one.welcome.travel == "text"
        await one.send(Generate("a", 2, messages=chat, output_text="So:"))
        got: list[bytes] = []
        while len(got) < 4:
            message = await one.receive()
            got += [message.data] if isinstance(message, Tokens) else []
            if len(got) == 2:
                await one.send(Extend("a", 4))
        await one.send(Stop("a", "taken_over"))
        ended = (await one.until_terminal("a"))[-1]
    assert got == [b" 0", b" 1", b" 0", b" 1"]
    assert (ended.reason, ended.usage.output_tokens) == ("stopped", 4)
    begin = "<|im_start|>user\ncount<|im_end|>\n<|im_start|>assistant\nSo:"
    assert [body["prompt"] for body in server.bodies] == [begin, f"{begin} 0 1"]
    assert "return_token_ids" not in server.bodies[0]


async def test_a_server_that_is_down_is_left_out_until_it_is_back(scripted, gateway, client, http, until, monkeypatch):
    monkeypatch.setattr(pool, "CHECK_EVERY", 0.05)
    first, second = scripted(), scripted()
    second.healthy = False
    running = gateway([first.url, second.url])
    async with client(running) as one:
        for name in "ab":
            await one.send(Generate(name, 1, prompt=(1, 2)))
            await one.until_terminal(name)
        assert (len(first.bodies), len(second.bodies)) == (2, 0)
        first.healthy, second.healthy = False, True
        await until(lambda: asked_next(running) == second.url)
        await one.send(Generate("c", 1, prompt=(1, 2)))
        assert (await one.until_terminal("c"))[-1].reason == "grant"
        assert len(second.bodies) == 1
        second.healthy = False
        await until(lambda: http(running, "/ready")[0] == 503)
        await one.send(Generate("d", 1, prompt=(1, 2)))
        assert (await one.until_terminal("d"))[-1].reason == "busy"


def asked_next(running) -> str | None:
    choice = running.service.state.desk.backend._pool.choose(())
    return None if choice is None else choice[0].url


async def test_the_one_with_the_shorter_queue_is_asked(scripted, gateway, client, until, monkeypatch):
    monkeypatch.setattr(pool, "CHECK_EVERY", 0.05)
    long, short = scripted(), scripted()
    long.metrics = "vllm:num_requests_running 4\nvllm:num_requests_waiting 9\nvllm:kv_cache_usage_perc 0.5\n"
    short.metrics = "vllm:num_requests_running 4\nvllm:num_requests_waiting 0\nvllm:kv_cache_usage_perc 0.1\n"
    running = gateway([long.url, short.url])
    backend = running.service.state.desk.backend
    await until(lambda: backend.occupancy().kv_share == pytest.approx(0.3))
    async with client(running) as one:
        for name in "abc":
            await one.send(Generate(name, 1, prompt=(1, 2)))
            await one.until_terminal(name)
    assert (len(long.bodies), len(short.bodies)) == (0, 3)


async def test_a_drain_ends_what_runs_with_a_word(scripted, gateway, client):
    server = scripted()
    server.scripts = [slowly]
    running = gateway([server.url], drain_ms=50.0)
    async with client(running) as one:
        await one.send(Generate("a", 180, prompt=(1,) * 10))
        while not isinstance(await one.receive(), Tokens):
            pass
        running.terminate()
        messages, code = await one.until_closed()
    [ended] = [message for message in messages if isinstance(message, Error | Finished)]
    assert (ended.code, ended.retriable, code) == ("engine", True, 1001)


async def test_openai_clients_see_no_difference(scripted, gateway, tiny_model):
    from model_runtime.tokenizers import load_tokenizer

    text = "naïve 東京\u2028 ✓"
    said = load_tokenizer(tiny_model("llama")).encode(text)

    async def says(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.pieces(said, "stop")
        await exchange.end(12)

    server = scripted()
    server.scripts = [says]
    running = gateway([server.url], model_name="toy")
    async with openai.AsyncOpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0) as api:
        chat = [{"role": "user", "content": "x"}]
        answer = await api.chat.completions.create(model="toy", messages=chat, max_tokens=100)
    assert answer.choices[0].message.content == text
    assert answer.choices[0].finish_reason == "stop"


def test_upstreams_that_cannot_be_used_are_named(scripted, gateway, tmp_path):
    server = scripted()
    server.model = {"id": "toy"}
    assert "set context_length" in gateway([server.url]).service.state.cause
    server.model = {"id": "toy", "max_model_len": 100}
    assert "holds 100" in gateway([server.url], context_length=200).service.state.cause
    assert "has no model 'other'; it has: 'toy'" in gateway([server.url], upstream_model="other").service.state.cause
