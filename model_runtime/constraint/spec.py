"""What an answer must look like: plain values, the same on both sides of a split and on the wire."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from model_runtime.errors import ConstraintError

#: How a constraint is written down.
Kind: TypeAlias = Literal["json_schema", "regex", "grammar"]


@dataclass(frozen=True, slots=True)
class JsonSchema:
    """The answer is one JSON value of this schema (JSON Schema 2020-12), with nothing before or after it.

    `JsonSchema({"type": "object"})` is any object. Keywords that cannot be held are refused, never skipped. Raises
    ConstraintError for what is no JSON.
    """

    schema: Mapping[str, Any] | bool

    def __post_init__(self) -> None:
        if not isinstance(self.schema, Mapping | bool):
            raise ConstraintError(f"a JSON schema is an object or a boolean, not a {type(self.schema).__name__}")
        _ = self.text

    @property
    def kind(self) -> Kind:
        return "json_schema"

    @property
    def text(self) -> str:
        """The schema as JSON. Keys keep their order, which is the order that the answer will have."""
        try:
            return json.dumps(self.schema, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise ConstraintError(f"the JSON schema cannot be written as JSON: {error}") from None


@dataclass(frozen=True, slots=True)
class Regex:
    """The whole answer matches this pattern. The syntax is that of Rust's `regex` crate: no look-around, no
    back-references, `^` and `$` are implied."""

    pattern: str

    @property
    def kind(self) -> Kind:
        return "regex"

    @property
    def text(self) -> str:
        return self.pattern


@dataclass(frozen=True, slots=True)
class Grammar:
    """The whole answer is of this context-free grammar: Lark, as llguidance has it (`start: …`), or llama.cpp's GBNF
    (`root ::= …`). Special tokens cannot be named: the two sides of a split may not share them."""

    text: str

    @property
    def kind(self) -> Kind:
        return "grammar"


Constraint: TypeAlias = JsonSchema | Regex | Grammar


def constraint_from(kind: Kind, text: str) -> Constraint:
    """The constraint that `kind` and `text` were made of. Raises ConstraintError."""
    match kind:
        case "json_schema":
            try:
                return JsonSchema(json.loads(text))
            except (ValueError, RecursionError) as error:
                raise ConstraintError(f"the JSON schema is no JSON: {error}") from None
        case "regex":
            return Regex(text)
        case "grammar":
            return Grammar(text)
