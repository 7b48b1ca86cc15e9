"""A constraint on the answer of a reasoning model: what it thinks before stays free."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from model_runtime.constraint.lark import quoted, rules_of
from model_runtime.constraint.spec import Constraint, Grammar
from model_runtime.errors import ConstraintError
from model_runtime.thinking import thinking_reader

if TYPE_CHECKING:
    from model_runtime.core import Tokenizer


def after_thinking(constraint: Constraint, tokenizer: Tokenizer, prompt: Sequence[int]) -> Constraint:
    """`constraint` on what comes after the thinking, where the model's template knows any: it must be there where the
    prompt has opened it, and may be there otherwise. Raises ConstraintError where the tags are no text."""
    tags, reader = tokenizer.thinking, thinking_reader(tokenizer, prompt)
    if tags is None or reader is None:
        return constraint
    silent = (not tokenizer.token_bytes(token) for token in tokenizer.encode(tags.opening + tags.closing, special=True))
    if any(silent):
        if reader.thinking:
            raise ConstraintError("this model's thinking ends in a special token, which no constraint can lead to")
        return constraint
    opened = "thought" if reader.thinking else f"({quoted(tags.opening)} thought)?"
    rules = [
        f"start: {opened} answer",
        # `lazy`: up to the first closing tag.
        f"thought: thinking {quoted(chr(10))}~0..2",
        f"thinking[lazy]: /(.|\\n)*/ {quoted(tags.closing)}",
        rules_of(constraint, "answer"),
    ]
    return Grammar("\n".join(rules))
