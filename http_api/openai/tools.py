"""The functions that a model may ask for, and what form its answer must have."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

from pydantic import Field

from http_api.openai.base import Strict
from model_runtime.constraint import Constraint, JsonSchema
from model_runtime.tools import Only, Tool, ToolChoice


class FunctionOffered(Strict):
    name: str
    description: str | None = None
    #: A JSON schema.
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class ToolOffered(Strict):
    type: Literal["function"]
    function: FunctionOffered

    def as_tool(self) -> Tool:
        """Raises BadInputError."""
        function = self.function
        schema = {} if function.parameters is None else {"parameters": function.parameters}
        return Tool(function.name, function.description or "", **schema, strict=bool(function.strict))


class FunctionNamed(Strict):
    name: str


class ToolNamed(Strict):
    type: Literal["function"]
    function: FunctionNamed


ToolWanted: TypeAlias = Literal["auto", "none", "required"] | ToolNamed


def choice_of(wanted: ToolWanted | None) -> ToolChoice:
    if isinstance(wanted, ToolNamed):
        return Only(wanted.function.name)
    return wanted or "auto"


class TextFormat(Strict):
    type: Literal["text"]


class JsonObjectFormat(Strict):
    type: Literal["json_object"]


class NamedSchema(Strict):
    #: For the model provider's caches; no part of the answer.
    name: str
    description: str | None = None
    json_schema: dict[str, Any] | None = Field(default=None, alias="schema")
    #: Held either way.
    strict: bool | None = None


class JsonSchemaFormat(Strict):
    type: Literal["json_schema"]
    json_schema: NamedSchema


ResponseFormat: TypeAlias = TextFormat | JsonObjectFormat | JsonSchemaFormat


def constraint_of(wanted: ResponseFormat | None) -> Constraint | None:
    """Raises ConstraintError."""
    match wanted:
        case JsonObjectFormat():
            return JsonSchema({"type": "object"})
        case JsonSchemaFormat(json_schema=named):
            return JsonSchema({} if named.json_schema is None else named.json_schema)
        case _:
            return None
