"""Functions that a model may ask to have called, and its calls: plain values, the same on both sides of a split."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

from model_runtime.errors import BadInputError

#: As OpenAI's API has it.
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_NOTHING: Mapping[str, Any] = MappingProxyType({"type": "object", "properties": {}})


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the model may ask for. It is described to the model by the chat template.

    `parameters` is the JSON schema of the arguments, an object's. `strict`: the arguments are held to it while they are
    written (needs the extra `structured`). Raises BadInputError.
    """

    name: str
    description: str = ""
    parameters: Mapping[str, Any] = field(default_factory=lambda: _NOTHING)
    strict: bool = False

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise BadInputError(f"a tool's name is 1 to 64 letters, digits, _ and -, not {self.name[:100]!r}")
        if not isinstance(self.parameters, Mapping) or self.parameters.get("type", "object") != "object":
            raise BadInputError(f"the parameters of tool {self.name!r} must be a JSON schema of an object")
        _ = self.parameters_text

    @property
    def parameters_text(self) -> str:
        """The schema as JSON."""
        try:
            return json.dumps(dict(self.parameters), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise BadInputError(f"the parameters of tool {self.name!r} cannot be written as JSON: {error}") from None

    def as_template_sees_it(self) -> dict[str, Any]:
        """In the shape that chat templates read, which is OpenAI's."""
        function = {
            "name": self.name,
            "description": self.description,
            "parameters": json.loads(self.parameters_text),
        }
        return {"type": "function", "function": function}


@dataclass(frozen=True, slots=True)
class ToolCall:
    """The model asks for `name` to be called. `arguments` is JSON text as the model wrote it: valid for a strict tool,
    otherwise possibly not. `id` is made up here, and unique within the process."""

    id: str
    name: str
    arguments: str

    def parsed(self) -> dict[str, Any]:
        """The arguments. Raises BadInputError where they are no JSON object."""
        try:
            value = json.loads(self.arguments)
        except (ValueError, RecursionError) as error:
            raise BadInputError(f"the arguments of {self.name!r} are no JSON: {error}") from None
        if not isinstance(value, dict):
            raise BadInputError(f"the arguments of {self.name!r} are {type(value).__name__}; expected a JSON object")
        return value


@dataclass(frozen=True, slots=True)
class Only:
    """A tool choice: this tool must be called."""

    name: str


#: `auto`: the model decides. `none`: it is told of no tools. `required`: it must call at least one (needs the extra
#: `structured`, as `Only` does).
ToolChoice: TypeAlias = Literal["auto", "none", "required"] | Only
