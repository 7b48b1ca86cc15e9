"""Schemas and tools through the official `openai` client against the service."""

from __future__ import annotations

import json

import openai
import pytest

from model_runtime.testing import ScriptedEngine, ScriptedTokenizer

CHAT = [{"role": "user", "content": "Open the north gate."}]
PARAMETERS = {
    "type": "object",
    "properties": {"side": {"enum": ["north", "süd"]}, "open": {"type": "boolean"}},
    "required": ["side", "open"],
    "additionalProperties": False,
}
GATE = {"type": "function", "function": {"name": "gate", "description": "Opens a gate.", "parameters": PARAMETERS}}
SAID = 'Yes.\n<tool_call>\n{"name": "gate", "arguments": {"side": "süd", "open": true}}\n</tool_call>'


@pytest.fixture
def client(serve):
    """`client(engine)`: a sync client and the service it talks to."""
    made: list[openai.OpenAI] = []

    def start(engine: ScriptedEngine, **settings):
        running = serve(engine, model_name="toy", **settings)
        made.append(openai.OpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0))
        return made[-1], running

    yield start
    for one in made:
        one.close()


def rambling() -> ScriptedEngine:
    """It never saw JSON, and never ends by itself."""
    return ScriptedEngine(answer_length=10**6)


def says(text: str) -> ScriptedEngine:
    return ScriptedEngine(script=ScriptedTokenizer().encode(text))


def read_by(running) -> str:
    tokens = [token for chunks in running.engine.passes for chunk in chunks for token in chunk.tokens]
    return b"".join(map(running.engine.tokenizer.token_bytes, tokens)).decode()


@pytest.mark.parametrize("stream", [False, True])
def test_a_schema_is_held(client, stream: bool) -> None:
    api, _ = client(rambling())
    form = {"type": "json_schema", "json_schema": {"name": "gate", "schema": PARAMETERS, "strict": True}}
    if stream:
        with api.chat.completions.create(model="toy", messages=CHAT, response_format=form, stream=True) as chunks:
            choices = [chunk.choices[0] for chunk in chunks]
        text, finish = "".join(choice.delta.content or "" for choice in choices), choices[-1].finish_reason
    else:
        [choice] = api.chat.completions.create(model="toy", messages=CHAT, response_format=form).choices
        text, finish = choice.message.content, choice.finish_reason
    assert set(json.loads(text)) == {"side", "open"}
    assert finish == "stop"


def test_what_is_cut_off_says_so(client) -> None:
    api, _ = client(rambling())
    form = {"type": "json_schema", "json_schema": {"name": "gate", "schema": PARAMETERS}}
    [choice] = api.chat.completions.create(model="toy", messages=CHAT, response_format=form, max_tokens=3).choices
    assert choice.finish_reason == "length"
    assert choice.message.content.startswith("{")


def test_calls_are_told_apart_from_text(client) -> None:
    api, running = client(says(SAID))
    [choice] = api.chat.completions.create(model="toy", messages=CHAT, tools=[GATE], temperature=0).choices
    [call] = choice.message.tool_calls
    assert (choice.message.content, choice.finish_reason) == ("Yes.", "tool_calls")
    assert (call.type, call.function.name) == ("function", "gate")
    assert json.loads(call.function.arguments) == {"side": "süd", "open": True}
    assert "Opens a gate." in read_by(running)


def test_calls_are_streamed_as_they_are_written(client) -> None:
    api, _ = client(says(SAID))
    with api.chat.completions.create(model="toy", messages=CHAT, tools=[GATE], temperature=0, stream=True) as chunks:
        choices = [chunk.choices[0] for chunk in chunks]
    pieces = [piece for choice in choices for piece in choice.delta.tool_calls or ()]
    assert pieces[0].id.startswith("call_")
    assert pieces[0].function.name == "gate"
    assert len(pieces) > 3
    assert json.loads("".join(piece.function.arguments for piece in pieces)) == {"side": "süd", "open": True}
    assert "".join(choice.delta.content or "" for choice in choices) == "Yes."
    assert choices[-1].finish_reason == "tool_calls"


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "gate"}}], ids=str)
def test_a_call_can_be_required(client, choice) -> None:
    api, _ = client(rambling())
    [answer] = api.chat.completions.create(
        model="toy", messages=CHAT, tools=[GATE], tool_choice=choice, max_tokens=2000
    ).choices
    assert answer.finish_reason == "tool_calls"
    for call in answer.message.tool_calls:
        assert set(json.loads(call.function.arguments)) == {"side", "open"}


def test_a_result_goes_back_to_the_model(client) -> None:
    api, running = client(says("It is open."))
    called = {"id": "c1", "type": "function", "function": {"name": "gate", "arguments": '{"side": "süd"}'}}
    chat = [
        *CHAT,
        {"role": "assistant", "content": None, "tool_calls": [called]},
        {"role": "tool", "content": "It was stuck.", "tool_call_id": "c1"},
    ]
    [choice] = api.chat.completions.create(model="toy", messages=chat, tools=[GATE], temperature=0).choices
    assert (choice.message.content, choice.finish_reason) == ("It is open.", "stop")
    assert choice.message.tool_calls is None
    assert "<tool_response>\nIt was stuck." in read_by(running)


def test_an_engine_that_cannot_be_held_refuses_by_name(client, monkeypatch) -> None:
    monkeypatch.setattr("cloud_service.scheduler.runner.Runner.holds_constraints", False)
    api, running = client(says(SAID))
    for options, param in (
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"tools": [GATE], "tool_choice": "required"}, "tools"),
    ):
        with pytest.raises(openai.BadRequestError) as refused:
            api.chat.completions.create(model="toy", messages=CHAT, **options)
        assert (refused.value.param, refused.value.code) == (param, "unsupported_parameter")
    assert running.engine.passes == []
    [choice] = api.chat.completions.create(model="toy", messages=CHAT, tools=[GATE], temperature=0).choices
    assert choice.finish_reason == "tool_calls"
