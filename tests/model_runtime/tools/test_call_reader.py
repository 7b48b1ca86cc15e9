"""Calls are found in a text however it is split, and all other text comes through."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_runtime.tools import HERMES, CallArguments, CallBegun, CallEnded, CallReader, Part, ToolCall, ToolSyntax

LLAMA = ToolSyntax("", "", arguments_key="parameters")
MISTRAL = ToolSyntax("", "", listed=True)
TAGGED = ToolSyntax("<|call|>", "", listed=True)
SYNTAXES = {"hermes": HERMES, "llama": LLAMA, "mistral": MISTRAL, "tagged": TAGGED}


def read(pieces: Sequence[str], syntax: ToolSyntax = HERMES) -> tuple[CallReader, list[Part]]:
    ids = itertools.count()
    reader = CallReader(["weather", "gate"], syntax, lambda: f"call_{next(ids)}")
    parts = [part for piece in pieces for part in reader.push(piece)]
    return reader, parts + reader.end()


def write(syntax: ToolSyntax, calls: Sequence[tuple[str, object]]) -> str:
    bodies = [
        json.dumps({syntax.name_key: name, syntax.arguments_key: arguments}, ensure_ascii=False)
        for name, arguments in calls
    ]
    if syntax.listed:
        return f"{syntax.begin} [{', '.join(bodies)}] {syntax.end}"
    return "\n".join(f"{syntax.begin}\n{body}\n{syntax.end}" for body in bodies)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-99, 99) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
arguments = st.dictionaries(st.text(max_size=6), json_values, max_size=3)


@pytest.mark.parametrize("name", list(SYNTAXES))
@settings(max_examples=30)
@given(data=st.data())
def test_calls_are_read_however_they_are_split(name: str, data: st.DataObject) -> None:
    syntax = SYNTAXES[name]
    most = 1 if name == "llama" else 3
    calls = data.draw(st.lists(st.tuples(st.sampled_from(["weather", "gate"]), arguments), min_size=1, max_size=most))
    before = data.draw(st.sampled_from(["", "Let me see. ", "a < b, <tool", "{braces} "])) if syntax.begin else ""
    text = before + write(syntax, calls)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=6)))
    pieces = [text[a:b] for a, b in itertools.pairwise([0, *cuts, len(text)])]
    reader, parts = read(pieces, syntax)
    assert [(call.name, call.parsed()) for call in reader.calls] == calls
    assert reader.text == before.rstrip()
    assert "".join(part for part in parts if isinstance(part, str)) == reader.text
    for position, call in enumerate(reader.calls):
        mine = [part for part in parts if not isinstance(part, str) and part.position == position]
        assert isinstance(mine[0], CallBegun)
        assert mine[-1] == CallEnded(position, call)
        assert "".join(part.text for part in mine if isinstance(part, CallArguments)) == call.arguments


@given(
    st.lists(
        st.sampled_from(["<tool_call>", "</tool_call>", "{", "}", '"name"', ":", "x", " ", "\n", ",", '"weather"'])
    )
)
def test_no_text_is_lost_where_there_is_no_call(pieces: list[str]) -> None:
    """But for blanks around what was taken for a call, and the tags of calls."""
    reader, _ = read(pieces)
    if not reader.calls:
        assert "".join(reader.text.split()) == "".join("".join(pieces).split())


def test_arguments_come_as_they_are_written() -> None:
    reader = CallReader(["weather"], new_id=lambda: "call_0")
    assert reader.push("Let me look. <tool") == ["Let me look."]
    assert reader.push('_call>\n{"name": "wea') == []
    assert reader.push('ther", "argum') == [CallBegun(0, "call_0", "weather")]
    assert reader.push('ents": {"pl') == [CallArguments(0, '{"pl')]
    assert reader.push('ace": "x"}') == [CallArguments(0, 'ace": "x"}')]
    whole = ToolCall("call_0", "weather", '{"place": "x"}')
    assert reader.push("}\n</tool_c") == [CallEnded(0, whole)]
    assert reader.push("all>") == []
    assert reader.end() == []


@pytest.mark.parametrize(
    ("text", "syntax"),
    [
        ('{"name": "Mira", "age": 3}', LLAMA),  # JSON of another kind, and a name that is no tool's
        ('{"answer": {"name": "weather"}}', LLAMA),
        ("[1, 2]", MISTRAL),
        ('{"name": "weather" "x"}', LLAMA),
        ("<tool_call> is a tag", HERMES),
        ("a <tool_call", HERMES),
        ('<tool_call>\n{"arguments": {}}', HERMES),
        ("\n\nplain text \n", HERMES),
    ],
)
def test_what_only_looks_like_a_call_is_text(text: str, syntax: ToolSyntax) -> None:
    for pieces in ([text], list(text)):
        reader, _ = read(pieces, syntax)
        assert reader.calls == []
        assert "".join(reader.text.split()) == "".join(text.split())


def test_a_call_that_was_cut_off_is_told_with_what_there_is() -> None:
    reader, parts = read(['<tool_call>\n{"name": "gate", "arguments": {"open": tr'])
    assert parts[-1] == CallEnded(0, ToolCall("call_0", "gate", '{"open": tr'))
    assert reader.calls == [parts[-1].call]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ('{"arguments": {"a": 1}, "name": "gate"}', '{"a": 1}'),
        ('{"name": "gate"}', "{}"),
        ('{"name": "gate", "arguments": "{\\"a\\": 1}"}', '{"a": 1}'),
        ('{"type": "function", "id": "7", "name": "gate", "arguments": {}}', "{}"),
    ],
)
def test_what_models_vary(body: str, expected: str) -> None:
    reader, parts = read(list(f"<tool_call>{body}</tool_call>"))
    assert reader.calls == [ToolCall("call_0", "gate", expected)]
    assert "".join(part.text for part in parts if isinstance(part, CallArguments)) == expected


def test_text_goes_on_after_a_call() -> None:
    reader, _ = read(['A <tool_call>{"name": "gate", "arguments": {}}</tool_call> and B'])
    assert reader.text == "A and B"


def test_either_side_of_a_split_may_have_begun() -> None:
    """A model whose template writes bare objects goes on with a call that another began in words."""
    reader, _ = read(['<tool_call>\n{"name": "gate", ', '"arguments": {}}\n</tool_call>'], LLAMA)
    assert [call.name for call in reader.calls] == ["gate"]
