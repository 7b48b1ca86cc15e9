"""The official `openai` client against the local server: what every app that speaks the API relies on."""

from __future__ import annotations

import json

import openai
import pytest

from model_runtime.testing import Faults, ScriptedEngine
from tests.device_sdk.conftest import PROMPT, per_token
from tests.device_sdk.local_server.conftest import MODEL, says, slow

TEXT = "Der grüne Wagen, 東京 ✓ — naïve café.\n"
CHAT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Where is the crew?"}]
LONG = [{"role": "user", "content": PROMPT}]


def pd(**fields: object) -> dict[str, object]:
    return {"extra_body": {"pd_device": fields}}


def test_models(local) -> None:
    server = local(aliases="gpt-4o, org/name")
    with server.client() as api:
        assert [model.id for model in api.models.list()] == [MODEL, "gpt-4o", "org/name"]
        assert api.models.retrieve("org/name").id == "org/name"
        with pytest.raises(openai.NotFoundError):
            api.models.retrieve("other")


def test_a_completion_and_its_report(local) -> None:
    engine = says(TEXT)
    with local(engine).client() as api:
        answer = api.chat.completions.create(model=MODEL, messages=CHAT, temperature=0)
    [choice] = answer.choices
    assert choice.message.content == TEXT
    assert (choice.message.role, choice.finish_reason) == ("assistant", "stop")
    assert answer.usage.prompt_tokens == len(engine.tokenizer.render_chat(CHAT))
    assert answer.usage.completion_tokens == len(engine.tokenizer.encode(TEXT))
    assert answer.pd_device["mode"] == "ONLY_ON_DEVICE"
    assert answer.pd_device["device_tokens"] == answer.usage.completion_tokens


def test_a_split_answer_is_one_answer(local, serve, own_answer) -> None:
    server = local(ScriptedEngine(delay=per_token(0.001)), cloud=serve(ScriptedEngine()).url)
    with server.client() as api:
        raw = api.chat.completions.with_raw_response.create(
            model=MODEL, messages=LONG, temperature=0, max_tokens=90, extra_body={"pd_device": {"grant": 10}}
        )
        answer = raw.parse()
    tokenizer = ScriptedEngine().tokenizer
    assert answer.choices[0].message.content == b"".join(map(tokenizer.token_bytes, own_answer(count=90))).decode()
    report = answer.pd_device
    assert report["mode"] == "SPLIT"
    assert [span["source"] for span in report["spans"]] == ["cloud", "device"]
    assert 0 < report["cloud_tokens"] <= 10
    assert report["cloud_tokens"] + report["device_tokens"] == answer.usage.completion_tokens
    header = json.loads(raw.headers["x-pd-device"])
    assert header.items() <= report.items()
    assert header["handover_index"] == report["cloud_tokens"]


@pytest.mark.parametrize("usage", [False, True])
def test_a_stream(local, usage: bool) -> None:
    engine = says(TEXT)
    options = {"stream_options": {"include_usage": True}} if usage else {}
    with local(engine).client() as api:
        chunks = list(api.chat.completions.create(model=MODEL, messages=CHAT, stream=True, temperature=0, **options))
    assert len({chunk.id for chunk in chunks}) == 1
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == TEXT
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert (chunks[-1].usage is not None) == usage
    assert [hasattr(chunk, "pd_device") for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert chunks[-1].pd_device["device_tokens"] == len(engine.tokenizer.encode(TEXT))


def test_what_the_client_refuses_is_named(local, serve) -> None:
    server = local(cloud=serve(ScriptedEngine()).url)
    with server.client() as api, pytest.raises(openai.BadRequestError, match="protect names message 5") as refused:
        api.chat.completions.create(model=MODEL, messages=CHAT, **pd(protect=[{"message": 5}]))
    assert refused.value.param == "pd_device"


def test_a_stream_can_say_who_supplied_what(local, serve) -> None:
    server = local(ScriptedEngine(delay=per_token(0.001)), cloud=serve(ScriptedEngine()).url)
    with server.client() as api:
        stream = api.chat.completions.create(
            model=MODEL,
            messages=LONG,
            stream=True,
            temperature=0,
            max_tokens=60,
            extra_body={"pd_device": {"grant": 8, "events": True}},
        )
        told = [chunk.pd_device for chunk in stream if hasattr(chunk, "pd_device")]
    *events, report = told
    sources = [event["source"] for event in events if event["event"] == "token"]
    [hand_over] = [event for event in events if event["event"] == "hand_over"]
    assert sources == ["cloud"] * report["cloud_tokens"] + ["device"] * report["device_tokens"]
    assert hand_over["index"] == report["cloud_tokens"]


async def test_the_async_client(local) -> None:
    server = local(says(TEXT))
    async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as api:
        whole = await api.chat.completions.create(model=MODEL, messages=CHAT, temperature=0)
        assert whole.choices[0].message.content == TEXT
        stream = await api.chat.completions.create(model=MODEL, messages=CHAT, temperature=0, stream=True)
        assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == TEXT


def test_limits_stops_and_seeds(local) -> None:
    with local(ScriptedEngine(answer_length=100_000)).client() as api:

        def ask(**options) -> tuple[str, str, int]:
            answer = api.chat.completions.create(model=MODEL, messages=CHAT, **options)
            return answer.choices[0].message.content, answer.choices[0].finish_reason, answer.usage.completion_tokens

        assert ask(max_tokens=3, temperature=0)[1:] == ("length", 3)
        whole = ask(max_completion_tokens=30, temperature=0)[0]
        assert ask(max_tokens=30, temperature=0, stop=[whole[40:48]])[:2] == (whole[:40], "stop")
        assert ask(max_tokens=20, seed=7) == ask(max_tokens=20, seed=7) != ask(max_tokens=20, seed=8)
        assert ask(max_tokens=20) != ask(max_tokens=20)


def test_without_a_limit_an_answer_may_fill_the_context(local) -> None:
    with local(ScriptedEngine(answer_length=100_000, context_length=200)).client() as api:
        answer = api.chat.completions.create(model=MODEL, messages=CHAT, temperature=0)
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.total_tokens == 200


def test_a_secret_stays_on_the_device(local, serve) -> None:
    service = serve(ScriptedEngine())
    with local(ScriptedEngine(delay=per_token(0.001)), cloud=service.url).client() as api:
        answer = api.chat.completions.create(model=MODEL, messages=LONG, max_tokens=20, **pd(privacy="secret"))
        assert answer.pd_device["mode"] == "ONLY_ON_DEVICE"
        assert not service.engine.passes
        api.chat.completions.create(model=MODEL, messages=CHAT, max_tokens=20, **pd(privacy="public", deadline_ms=500))


def test_any_name_where_the_owner_says_so(local) -> None:
    with local(says(TEXT), aliases="*").client() as api:
        assert api.chat.completions.create(model="gpt-4o", messages=CHAT).model == "gpt-4o"
        assert [model.id for model in api.models.list()] == [MODEL]


def test_what_clients_send_and_do_not_mean_is_accepted(local) -> None:
    """Null asks for nothing, whatever the field; so do messages that are sent back as they came."""
    with local(says(TEXT)).client() as api:
        said = api.chat.completions.create(model=MODEL, messages=CHAT, temperature=0).choices[0].message
        extra = {"function_call": None, "logit_bias": {}, "top_logprobs": None, "modalities": ["text"], "n": 1}
        history = [*CHAT, said.model_dump(), {"role": "user", "content": "Sure?"}]
        answer = api.chat.completions.create(model=MODEL, messages=history, temperature=0, user="u", extra_body=extra)
    assert answer.choices[0].message.content == TEXT


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"n": 2}, "n"),
        ({"logprobs": True}, "logprobs"),
        ({"logit_bias": {"1": 5}}, "logit_bias"),
        ({"temperature": 3}, "temperature"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 3, "max_completion_tokens": 3}, "max_tokens"),
        ({"extra_body": {"beam_width": 4}}, "beam_width"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user", "content": "é" * 9000}]}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}, None),
        (pd(mode="SPLIT"), "pd_device"),  # without a cloud
        (pd(mode="HYBRID"), "pd_device.mode"),
        (pd(gain=3), "pd_device.gain"),
        (pd(grant=-1), "pd_device.grant"),
        (pd(refine=0.0), None),
        (pd(pace_ms=-1), "pd_device.pace_ms"),
        (pd(protect=[{"message": "0"}]), "pd_device.protect.0.message"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_what_is_not_supported_is_refused_by_name(refusing, options, param, stream) -> None:
    server, api, engine = refusing
    before = len(engine.passes)
    with pytest.raises(openai.BadRequestError) as refused:
        api.chat.completions.create(**{"model": MODEL, "messages": CHAT, "stream": stream, **options})
    assert param is None or refused.value.param == param
    assert refused.value.type == "invalid_request_error"
    assert "é" not in refused.value.message
    assert len(engine.passes) == before
    assert server.service.running == 0


def test_a_model_that_is_not_served_and_an_endpoint_that_is_not_there(local) -> None:
    with local().client() as api:
        with pytest.raises(openai.NotFoundError) as refused:
            api.chat.completions.create(model="gpt", messages=CHAT)
        assert (refused.value.param, refused.value.code) == ("model", "model_not_found")
        with pytest.raises(openai.NotFoundError) as refused:
            api.embeddings.create(model=MODEL, input="x")
        assert refused.value.code == "unknown_endpoint"


@pytest.mark.parametrize("stream", [False, True])
def test_an_engine_that_fails_is_an_error_with_the_report(local, stream: bool) -> None:
    engine = slow()
    server = local(engine)
    engine.faults = Faults(fail_at=len(engine.passes) + 5)
    with server.client() as api:
        with pytest.raises(openai.APIError) as failed:
            list(api.chat.completions.create(model=MODEL, messages=CHAT, stream=stream))
        assert failed.value.code == "generation_failed"
        # A client that goes on asking is told what is wrong.
        with pytest.raises(openai.InternalServerError) as failed:
            api.chat.completions.create(model=MODEL, messages=CHAT)
        assert failed.value.code == "device_unusable"
    assert "injected fault" in json.loads(server.http("/health")[2])["device_problem"]
