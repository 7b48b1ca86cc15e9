"""What a reasoning model thinks stays free; the answer after it is held."""

from __future__ import annotations

import pytest

from model_runtime.constraint import Constraint, Grammar, JsonSchema, Regex, Watch
from model_runtime.constraint.thinking import after_thinking
from model_runtime.errors import ConstraintError
from model_runtime.testing import ScriptedTokenizer
from model_runtime.thinking import ThinkingTags

TAGS = ThinkingTags("<think>", "</think>")
SCHEMA = JsonSchema({"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]})


class Thinking(ScriptedTokenizer):
    """A tokenizer whose template knows thinking; the tags are made of characters."""

    thinking = TAGS  # type: ignore[assignment]


def allowed(constraint: Constraint, text: str) -> bool:
    watch = Watch(constraint)
    return watch.restart(text.encode()) and watch.complete


@pytest.mark.parametrize(
    ("constraint", "good", "bad"),
    [
        (SCHEMA, '{"a": 1}', "hm"),
        (Regex("a/b+"), "a/bb", "b"),
        (Grammar('start: "x" y\ny: "y"\n'), "xy", "x"),
        (Grammar('root ::= "x" y\ny ::= "y"\n'), "xy", "x"),
    ],
)
def test_the_answer_is_held_and_the_thinking_is_not(constraint: Constraint, good: str, bad: str) -> None:
    tokenizer = Thinking()
    may = after_thinking(constraint, tokenizer, tokenizer.encode("assistant\n"))
    must = after_thinking(constraint, tokenizer, tokenizer.encode("assistant\n<think>\n"))
    assert allowed(may, good)
    assert allowed(may, f"<think>Well, {bad} {{ 東京?</think>\n\n{good}")
    assert allowed(must, f"Well, {bad} {{ 東京?\n</think>\n\n{good}")
    assert allowed(must, f"</think>{good}")
    assert not allowed(must, good)
    for form in (may, must):
        assert not allowed(form, bad)
        assert not allowed(form, f"<think>{good}")
        assert not allowed(form, f"<think>{good}</think>{bad}")


def test_other_models_are_left_alone() -> None:
    assert after_thinking(SCHEMA, ScriptedTokenizer(), [1]) is SCHEMA


def test_tags_that_add_no_text_cannot_be_led_to() -> None:
    class Silent(ScriptedTokenizer):
        thinking = ThinkingTags("<|im_start|>", "<|im_end|>")  # type: ignore[assignment]

    tokenizer = Silent()
    assert after_thinking(SCHEMA, tokenizer, [1]) is SCHEMA
    with pytest.raises(ConstraintError, match="special token"):
        after_thinking(SCHEMA, tokenizer, [1, tokenizer.im_start])
