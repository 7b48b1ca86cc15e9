"""An answer that must call a tool does, in the model's own syntax, with arguments of the tool's schema."""

from __future__ import annotations

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_runtime.constraint import Constraint, Grammar, JsonSchema, Regex, Watch
from model_runtime.errors import BadInputError, ConstraintError
from model_runtime.sampling import SamplingParams
from model_runtime.tools import HERMES, CallReader, Only, Tool, ToolChoice, ToolSyntax
from model_runtime.tools.forcing import MOST_CALLS, constraint_with, offered
from tests.model_runtime.constraint.test_constraint import say

GATE = Tool(
    "gate",
    "Opens or locks a gate.",
    {
        "type": "object",
        "properties": {"side": {"enum": ["north", "south"]}, "open": {"type": "boolean"}},
        "required": ["side", "open"],
        "additionalProperties": False,
    },
    strict=True,
)
PUMP = Tool("pump-1", parameters={"type": "object", "properties": {}, "additionalProperties": False})
TOOLS = (GATE, PUMP)
SYNTAXES = {
    "hermes": HERMES,
    "llama": ToolSyntax("", "", arguments_key="parameters"),
    "mistral": ToolSyntax("", "", listed=True),
    "tagged": ToolSyntax("<call>", "</call>", listed=True),
}


@pytest.mark.parametrize("name", list(SYNTAXES))
@pytest.mark.parametrize("choice", ["required", Only("gate"), Only("pump-1")], ids=str)
@settings(max_examples=2)
@given(seed=st.integers(0, 10**6))
def test_a_model_that_knows_no_tools_calls_one(name: str, choice: ToolChoice, seed: int) -> None:
    syntax = SYNTAXES[name]
    constraint = constraint_with(TOOLS, choice, syntax, None)
    text, ended = say(constraint, SamplingParams(temperature=2.0, seed=seed), seed=seed, most=900)
    reader = CallReader([tool.name for tool in TOOLS], syntax)
    reader.push(text)
    reader.end()
    assert ended
    assert 1 <= len(reader.calls) <= MOST_CALLS
    assert reader.text == ""
    for call in reader.calls:
        tool = next(tool for tool in TOOLS if tool.name == call.name)
        jsonschema.validate(call.parsed(), dict(tool.parameters))
        assert not isinstance(choice, Only) or call.name == choice.name


HERMES_CALL = '<tool_call>\n{"name": "gate", "arguments": {"side": "north", "open": true}}\n</tool_call>'
WRONG_CALL = HERMES_CALL.replace("north", "up")


@pytest.mark.parametrize(
    ("syntax", "response_format", "good", "bad"),
    [
        (HERMES, None, ["hello", "a < b", "", HERMES_CALL, f"Let me see. {HERMES_CALL} Done."], [WRONG_CALL]),
        (HERMES, JsonSchema({"type": "integer"}), ["12", HERMES_CALL], ["hello", WRONG_CALL]),
        (HERMES, JsonSchema(True), ["[1, 2]", HERMES_CALL], ["hello"]),
        (HERMES, Regex("a/b+"), ["a/bb", HERMES_CALL], ["ab"]),
        (HERMES, Grammar('start: "a" B+\nB: /b/\n'), ["abb", HERMES_CALL], ["b"]),
        (HERMES, Grammar('root ::= "a" b+\nb ::= "b"\n'), ["abb", HERMES_CALL], ["b"]),
        (
            SYNTAXES["llama"],
            None,
            ["hello", '{"name": "gate", "parameters": {"side": "north", "open": true}}'],
            ['{"name": "gate", "parameters": {"side": 1'],
        ),
        (SYNTAXES["mistral"], None, ["hello", '[{"name": "pump-1", "arguments": {}}]'], ['[{"name": "valve"']),
    ],
)
def test_what_may_call_may_also_answer(
    syntax: ToolSyntax, response_format: Constraint | None, good: list[str], bad: list[str]
) -> None:
    constraint = constraint_with(TOOLS, "auto", syntax, response_format)
    assert constraint is not None
    watch = Watch(constraint)
    for text in good:
        assert watch.restart(text.encode()), text
        assert watch.complete, text
    for text in bad:
        assert not watch.restart(text.encode()), text


def test_a_free_model_is_not_constrained() -> None:
    assert constraint_with((PUMP,), "auto", HERMES, None) is None
    assert constraint_with((), "auto", HERMES, Regex("a")) == Regex("a")


@pytest.mark.parametrize(
    ("response_format", "choice"),
    [(Regex("a"), "required"), (Grammar('start: "a" start | "b"'), "auto"), (Grammar("nonsense"), "auto")],
)
def test_what_cannot_be_combined_is_refused(response_format: Constraint, choice: ToolChoice) -> None:
    with pytest.raises(ConstraintError):
        constraint_with(TOOLS, choice, HERMES, response_format)


def test_a_choice_must_fit_the_tools() -> None:
    assert offered(TOOLS, "none") == ()
    assert offered(TOOLS, Only("gate")) == TOOLS
    for tools, choice in [((), "required"), (TOOLS, Only("valve")), ((GATE, GATE), "auto"), (TOOLS, "always")]:
        with pytest.raises(BadInputError):
            offered(tools, choice)  # type: ignore[arg-type]
