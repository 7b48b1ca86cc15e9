"""Tools, JSON schemas, patterns and grammars through the official client, with the seam in the middle of them."""

from __future__ import annotations

import json
import re

import jsonschema
import openai
import pytest

from model_runtime.testing import ScriptedEngine
from tests.device_sdk.conftest import PROMPT, per_token
from tests.device_sdk.local_server.conftest import MODEL, says

pytest.importorskip("llguidance", reason="the extra `structured` is not installed")

CHAT = [{"role": "user", "content": PROMPT}]
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS = [{"type": "function", "function": {"name": "weather", "description": "of a city", "parameters": CITY}}]
CALLS = [{"name": "weather", "arguments": {"city": city}} for city in ("Genève", "東京")]
SAID = "Let me look.\n" + "\n".join(
    f"<tool_call>\n{json.dumps(call, ensure_ascii=False)}\n</tool_call>" for call in CALLS
)


@pytest.fixture
def split_server(local, serve):
    def start(text: str | None):
        make = ScriptedEngine if text is None else lambda **options: says(text, **options)
        return local(make(delay=per_token(0.001)), cloud=serve(make()).url)

    return start


@pytest.mark.parametrize("grant", [0, 9, 40, 200])
def test_calls_come_whole_wherever_the_seam_is(split_server, grant: int) -> None:
    with split_server(SAID).client() as api:
        answer = api.chat.completions.create(
            model=MODEL, messages=CHAT, tools=TOOLS, temperature=0, extra_body={"pd_device": {"grant": grant}}
        )
    [choice] = answer.choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content.strip() == "Let me look."
    assert [json.loads(call.function.arguments) for call in choice.message.tool_calls] == [
        call["arguments"] for call in CALLS
    ]
    assert {call.function.name for call in choice.message.tool_calls} == {"weather"}
    assert len({call.id for call in choice.message.tool_calls}) == 2


@pytest.mark.parametrize("parallel", [True, False])
@pytest.mark.parametrize("stream", [True, False])
def test_calls_in_a_stream_and_one_at_a_time(split_server, parallel: bool, stream: bool) -> None:
    asked = {"model": MODEL, "messages": CHAT, "tools": TOOLS, "temperature": 0, "parallel_tool_calls": parallel}
    asked["extra_body"] = {"pd_device": {"grant": 30}}
    server = split_server(SAID)
    with server.client() as api:
        if stream:
            with api.chat.completions.stream(**asked) as events:
                answer = events.get_final_completion()
        else:
            answer = api.chat.completions.create(**asked)
    [choice] = answer.choices
    assert choice.finish_reason == "tool_calls"
    wanted = CALLS if parallel else CALLS[:1]
    assert [json.loads(call.function.arguments) for call in choice.message.tool_calls] == [
        call["arguments"] for call in wanted
    ]


def test_results_go_back(split_server) -> None:
    with split_server(SAID).client() as api:
        asked = {"model": MODEL, "tools": TOOLS, "temperature": 0}
        message = api.chat.completions.create(**asked, messages=CHAT).choices[0].message
        results = [{"role": "tool", "tool_call_id": call.id, "content": "sunny"} for call in message.tool_calls]
        history = [*CHAT, message.model_dump(), *results]
        assert api.chat.completions.create(**asked, messages=history).choices[0].message.content


SCHEMA = {
    "type": "object",
    "properties": {"ok": {"type": "boolean"}, "count": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["ok", "count"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("grant", [0, 3, 50])
def test_a_json_schema_holds_across_the_seam(split_server, grant: int) -> None:
    with split_server(None).client() as api:
        answer = api.chat.completions.create(
            model=MODEL,
            messages=CHAT,
            seed=grant,
            max_tokens=200,
            response_format={"type": "json_schema", "json_schema": {"name": "it", "schema": SCHEMA, "strict": True}},
            extra_body={"pd_device": {"grant": grant}},
        )
    jsonschema.validate(json.loads(answer.choices[0].message.content), SCHEMA)


def test_what_openai_has_no_word_for(split_server) -> None:
    with split_server(None).client() as api:

        def ask(**how: str) -> str:
            extra = {"pd_device": {"grant": 3, **how}}
            answer = api.chat.completions.create(model=MODEL, messages=CHAT, max_tokens=60, extra_body=extra)
            return answer.choices[0].message.content

        assert re.fullmatch(r"crew [0-9]{3}", ask(regex="crew [0-9]{3}"))
        assert ask(grammar='root ::= "north" | "gate"') in ("north", "gate")
        text = api.completions.create(
            model=MODEL, prompt=PROMPT, max_tokens=20, extra_body={"pd_device": {"regex": "[ab]{4}"}}
        )
        assert re.fullmatch("[ab]{4}", text.choices[0].text)


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"tools": [{"type": "function", "function": {"name": "not a name"}}]}, "tools"),
        ({"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "other"}}}, "tool_choice"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [{"type": "retrieval"}]}, "tools.0.type"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "no"}}}}, None),
        ({"extra_body": {"pd_device": {"regex": "("}}}, None),
        ({"extra_body": {"pd_device": {"regex": "a", "grammar": "b"}}}, "pd_device"),
        ({"response_format": {"type": "json_object"}, "extra_body": {"pd_device": {"regex": "a"}}}, "response_format"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0"),
        ({"messages": [{"role": "user"}]}, "messages.0"),
    ],
)
def test_forms_that_cannot_be_held_are_refused(refusing, options, param) -> None:
    _, api, _ = refusing
    with pytest.raises(openai.BadRequestError) as refused:
        api.chat.completions.create(**{"model": MODEL, "messages": CHAT, **options})
    assert refused.value.param == param, refused.value
