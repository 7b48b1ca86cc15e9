"""`/v1/completions`: the prompt as it stands; and chats that go on from what the device has read already."""

from __future__ import annotations

import openai
import pytest

from model_runtime.testing import ScriptedEngine
from tests.device_sdk.conftest import PROMPT, per_token
from tests.device_sdk.local_server.conftest import MODEL, says

TEXT = "Der grüne Wagen, 東京 ✓ — naïve café.\n"


def test_a_completion(local, serve) -> None:
    server = local(says(TEXT, delay=per_token(0.001)), cloud=serve(says(TEXT)).url)
    with server.client() as api:
        answer = api.completions.create(
            model=MODEL, prompt=PROMPT, max_tokens=90, temperature=0, extra_body={"pd_device": {"grant": 4}}
        )
    assert (answer.object, answer.choices[0].text, answer.choices[0].finish_reason) == ("text_completion", TEXT, "stop")
    assert answer.usage.prompt_tokens == len(ScriptedEngine().tokenizer.encode(PROMPT)), "no template around it"
    assert [span["source"] for span in answer.pd_device["spans"]] == ["cloud", "device"]


def test_a_stream_and_the_default_length(local) -> None:
    with local(says(TEXT)).client() as api:
        usage = {"include_usage": True}
        chunks = list(
            api.completions.create(
                model=MODEL, prompt=[PROMPT], stream=True, temperature=0, max_tokens=90, stream_options=usage
            )
        )
        assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices) == TEXT
        assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
        assert chunks[-1].usage.completion_tokens == chunks[-1].pd_device["device_tokens"]
        assert api.completions.create(model=MODEL, prompt=PROMPT, temperature=0).usage.completion_tokens == 16


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"prompt": ["one", "two"]}, None),
        ({"prompt": ""}, None),
        ({"echo": True}, "echo"),
        ({"suffix": "x"}, "suffix"),
        ({"best_of": 2}, "best_of"),
        ({"logprobs": 1}, "logprobs"),
        ({"prompt": "é" * 9000}, "prompt"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(refusing, options, param) -> None:
    _, api, _ = refusing
    with pytest.raises(openai.BadRequestError) as refused:
        api.completions.create(**{"model": MODEL, "prompt": "x", **options})
    assert param is None or refused.value.param == param


def test_a_chat_goes_on_from_what_the_device_has_read(local) -> None:
    engine = ScriptedEngine()
    server = local(engine)
    with server.client() as api:
        chat = [{"role": "system", "content": PROMPT}, {"role": "user", "content": "Where is the crew?"}]
        first = api.chat.completions.create(model=MODEL, messages=chat, temperature=0, max_tokens=20)
        chat += [first.choices[0].message.model_dump(), {"role": "user", "content": "And the pump?"}]
        before = len(engine.passes)
        second = api.chat.completions.create(model=MODEL, messages=chat, temperature=0, max_tokens=20)
    cached = second.usage.prompt_tokens_details.cached_tokens
    assert first.usage.prompt_tokens_details.cached_tokens == 0
    assert first.usage.prompt_tokens <= cached < second.usage.prompt_tokens
    assert second.pd_device["reused_tokens"] == cached
    read = sum(len(chunk.tokens) for chunks in engine.passes[before:] for chunk in chunks)
    assert read <= second.usage.total_tokens - cached


def test_warm_prompts_can_be_turned_off(local) -> None:
    server = local(warm_prompts=0)
    with server.client() as api:
        chat = [{"role": "user", "content": PROMPT}]
        for _ in range(2):
            answer = api.chat.completions.create(model=MODEL, messages=chat, max_tokens=2)
            assert answer.usage.prompt_tokens_details.cached_tokens == 0
