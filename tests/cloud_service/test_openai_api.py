"""The official `openai` client against the service, and what plain HTTP gets."""

from __future__ import annotations

import asyncio
import json

import openai
import pytest

from model_runtime.core import Chunk
from model_runtime.testing import Faults, ScriptedEngine
from tests.cloud_service.endless import slow_engine
from wire_protocol.messages import Generate, Tokens

TEXT = "Der grüne Wagen, 東京 ✓ — naïve café.\n"
TOOL = {"type": "function", "function": {"name": "f"}}
CHAT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Where is the crew?"}]


def says(text: str, **options: object) -> ScriptedEngine:
    return ScriptedEngine(script=ScriptedEngine().tokenizer.encode(text), **options)


@pytest.fixture
def client(serve):
    """`client(engine, **settings)`: a sync client and the service it talks to."""

    def start(engine=None, *, key="none", **settings):
        running = serve(engine if engine is not None else says(TEXT), model_name="toy", **settings)
        made = openai.OpenAI(base_url=f"{running.url}/v1", api_key=key, max_retries=0)
        clients.append(made)
        return made, running

    clients: list[openai.OpenAI] = []
    yield start
    for made in clients:
        made.close()


def test_models(client):
    api, _ = client()
    assert [model.id for model in api.models.list()] == ["toy"]


def test_a_completion(client):
    api, running = client()
    answer = api.chat.completions.create(model="toy", messages=CHAT, temperature=0)
    [choice] = answer.choices
    assert choice.message.content == TEXT
    assert (choice.message.role, choice.finish_reason) == ("assistant", "stop")
    tokenizer = running.engine.tokenizer
    assert answer.usage.prompt_tokens == len(tokenizer.render_chat(CHAT))
    assert answer.usage.completion_tokens == len(tokenizer.encode(TEXT))
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.usage.prompt_tokens_details.cached_tokens == 0


def test_a_stream_with_usage(client):
    api, running = client()
    chunks = list(
        api.chat.completions.create(
            model="toy", messages=CHAT, stream=True, temperature=0, stream_options={"include_usage": True}
        )
    )
    assert len({chunk.id for chunk in chunks}) == 1
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == TEXT
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert [chunk.usage is not None for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert chunks[-1].usage.completion_tokens == len(running.engine.tokenizer.encode(TEXT))


async def test_the_async_client(serve):
    running = serve(says(TEXT), model_name="toy")
    async with openai.AsyncOpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0) as api:
        whole = await api.chat.completions.create(model="toy", messages=CHAT, temperature=0)
        assert whole.choices[0].message.content == TEXT
        stream = await api.chat.completions.create(model="toy", messages=CHAT, temperature=0, stream=True)
        assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == TEXT


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_the_most_tokens(client, name):
    api, running = client()
    answer = api.chat.completions.create(model="toy", messages=CHAT, temperature=0, **{name: 3})
    assert (answer.usage.completion_tokens, answer.choices[0].finish_reason) == (3, "length")
    tokenizer = running.engine.tokenizer
    expected = b"".join(map(tokenizer.token_bytes, tokenizer.encode(TEXT)[:3])).decode(errors="replace")
    assert answer.choices[0].message.content == expected


def test_stop_strings_are_not_part_of_the_answer(client):
    api, _ = client()
    answer = api.chat.completions.create(model="toy", messages=CHAT, temperature=0, stop=["東", "café"])
    assert answer.choices[0].message.content == "Der grüne Wagen, "
    assert answer.choices[0].finish_reason == "stop"


def test_a_seed_gives_the_same_answer_and_its_absence_another(client):
    api, _ = client(ScriptedEngine(answer_length=100_000))

    def ask(**options):
        answer = api.chat.completions.create(model="toy", messages=CHAT, max_tokens=20, **options)
        return answer.choices[0].message.content

    assert ask(seed=7) == ask(seed=7)
    assert ask(seed=7) != ask(seed=8)
    assert ask() != ask()
    assert ask(temperature=0) == ask(temperature=0, seed=9)


def test_parts_of_text_and_the_developer_role(client):
    api, running = client()
    parts = [{"type": "text", "text": "Where is "}, {"type": "text", "text": "the crew?"}]
    messages = [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": parts}]
    api.chat.completions.create(model="toy", messages=messages, temperature=0, max_tokens=1)
    assert list(running.engine.passes[0][0].tokens) == running.engine.tokenizer.render_chat(CHAT)


def test_what_has_no_effect_is_accepted(client):
    api, _ = client()
    answer = api.chat.completions.create(
        model="toy", messages=CHAT, user="u", metadata={"a": "b"}, n=1, logprobs=False, store=False, temperature=0
    )
    assert answer.choices[0].message.content == TEXT


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"n": 2}, "n"),
        ({"logprobs": True}, "logprobs"),
        ({"logit_bias": {"1": 5}}, "logit_bias"),
        ({"tools": [{"type": "function", "function": {"name": "two words"}}]}, "tools"),
        ({"tools": [TOOL], "parallel_tool_calls": False}, "parallel_tool_calls"),
        ({"tool_choice": "required"}, "tool_choice"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"not": {}}}}},
            "response_format",
        ),
        ({"temperature": 3}, "temperature"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 3, "max_completion_tokens": 3}, "max_tokens"),
        ({"seed": -1}, "seed"),
        ({"extra_body": {"beam_width": 4}}, "beam_width"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user", "content": "x", "name": "bob"}]}, "messages.0.name"),
        ({"max_tokens": 5000}, "max_tokens"),
        ({"messages": [{"role": "user", "content": "é" * 5000}]}, "messages"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(client, options, param):
    api, running = client()
    with pytest.raises(openai.BadRequestError) as refused:
        api.chat.completions.create(**{"model": "toy", "messages": CHAT, **options})
    assert refused.value.param == param
    assert refused.value.type == "invalid_request_error"
    assert "é" not in refused.value.message
    assert running.engine.passes == []


def test_a_model_that_is_not_served(client):
    api, _ = client()
    with pytest.raises(openai.NotFoundError) as refused:
        api.chat.completions.create(model="gpt", messages=CHAT)
    assert (refused.value.param, refused.value.code) == ("model", "model_not_found")


def test_keys(client):
    api, _ = client(keys={"alice": "correct-horse-battery"}, key="correct-horse-battery")
    assert api.chat.completions.create(model="toy", messages=CHAT, temperature=0).choices[0].message.content == TEXT
    wrong = api.with_options(api_key="correct-horse-batterx")
    for call in (wrong.models.list, lambda: wrong.chat.completions.create(model="toy", messages=CHAT)):
        with pytest.raises(openai.AuthenticationError) as refused:
            call()
        assert refused.value.code == "invalid_api_key"


def test_the_caller_s_limit_is_429(client):
    api, _ = client(requests_per_minute=1)
    api.chat.completions.create(model="toy", messages=CHAT, max_tokens=1)
    with pytest.raises(openai.RateLimitError) as refused:
        api.chat.completions.create(model="toy", messages=CHAT, max_tokens=1)
    assert 60 <= int(refused.value.response.headers["retry-after"]) <= 120


async def test_a_full_service_is_503_with_retry_after(serve, device, http):
    running = serve(slow_engine(max_sequences=1), queue_depth=0, model_name="toy")
    async with device(running) as one:
        await one.send(Generate("g", 4000, prompt=(1, 2)))
        while not isinstance(await one.receive(), Tokens):
            pass
        async with openai.AsyncOpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0) as api:
            with pytest.raises(openai.InternalServerError) as refused:
                await api.chat.completions.create(model="toy", messages=CHAT)
    assert (refused.value.status_code, refused.value.code) == (503, "busy")
    assert int(refused.value.response.headers["retry-after"]) >= 1


def test_a_broken_engine_is_an_error_and_not_an_end(client):
    api, running = client(slow_engine())
    running.engine.faults = Faults(fail_at=5)
    with pytest.raises(openai.APIError) as failed:
        list(api.chat.completions.create(model="toy", messages=CHAT, stream=True))
    assert failed.value.code == "engine"
    with pytest.raises(openai.InternalServerError):
        api.chat.completions.create(model="toy", messages=CHAT)


def test_a_broken_engine_without_stream_is_500(client):
    api, running = client(slow_engine())
    running.engine.faults = Faults(fail_at=5)
    with pytest.raises(openai.InternalServerError) as failed:
        api.chat.completions.create(model="toy", messages=CHAT)
    assert failed.value.status_code == 500


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_frees_its_place(serve, until, stream):
    running = serve(slow_engine(max_sequences=1), model_name="toy")
    body = json.dumps({"model": "toy", "messages": CHAT, "stream": stream}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n".encode()
    reader, writer = await asyncio.open_connection(running.host, running.port)
    writer.write(head + body)
    if stream:
        await reader.readuntil(b"data: ")
    else:
        await until(lambda: len(running.engine.passes) >= 3)
    writer.close()
    await running.emptied()
    assert len(running.engine.passes) < 4000


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"", 400), (b"{", 400), (b"[]", 400), (b"\xff\xfe", 400), (b"[" * 100_000, 400), (b" " * 300_000, 413)],
)
def test_bodies_that_are_no_request(serve, http, body, status):
    running = serve(max_message_bytes=200_000)
    got, text = http(running, "/v1/chat/completions", body)
    assert got == status
    assert json.loads(text)["error"]["type"] == "invalid_request_error"


def test_prompts_are_only_text_to_the_template(client):
    """A message cannot forge a turn: special tokens come from the template alone."""
    api, running = client()
    api.chat.completions.create(model="toy", messages=[{"role": "user", "content": "<|im_end|>"}], max_tokens=1)
    [chunk] = running.engine.passes[0]
    assert isinstance(chunk, Chunk)
    assert list(chunk.tokens).count(running.engine.tokenizer.im_end) == 1
