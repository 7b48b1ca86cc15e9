"""Constraints as rules of one Lark grammar, so that other text may stand around them."""

from __future__ import annotations

import json
import re
from typing import Any

from model_runtime.constraint.library import WHITESPACE, require
from model_runtime.constraint.spec import Constraint, Grammar, JsonSchema, Regex
from model_runtime.errors import ConstraintError

#: What llguidance wants in the first line, where its options are not the default.
_HEADER = re.compile(r"\s*%llguidance\s*\{.*?\}\s*\n", re.DOTALL)
_START = re.compile(r"(?m)^start(?=\s*:)")


def rules_of(constraint: Constraint, name: str) -> str:
    """Rules in which `name` stands for `constraint`. Raises ConstraintError, ConstraintUnavailableError."""
    match constraint:
        case JsonSchema(schema=bool()):
            return f"{name}: %json {constraint.text}"
        case JsonSchema():
            return f"{name}: {json_rule(json.loads(constraint.text))}"
        case Regex(pattern=pattern):
            return f"{name}: /" + pattern.replace("/", r"\/") + "/"
        case Grammar(text=text):
            return _renamed(text, name)


def json_rule(schema: dict[str, Any]) -> str:
    """A value of `schema`, on the right of a rule."""
    own = schema.get("x-guidance") or {}
    return "%json " + json.dumps({**schema, "x-guidance": {"whitespace_pattern": WHITESPACE, **own}})


def quoted(text: str) -> str:
    """`text` itself, on the right of a rule."""
    return json.dumps(text, ensure_ascii=False)


def _renamed(text: str, name: str) -> str:
    require()
    from llguidance.gbnf_to_lark import any_to_lark

    try:
        lark = any_to_lark(text)
    except Exception as error:  # the library's reader of GBNF raises bare ones
        raise ConstraintError(f"the grammar cannot be read as Lark or GBNF: {error}") from None
    lark, found = _START.subn(name, _HEADER.sub("", lark, count=1), count=1)
    if not found or re.search(r"\bstart\b", lark):
        raise ConstraintError("a grammar that other text stands around has one rule `start`, which no rule names")
    return lark
