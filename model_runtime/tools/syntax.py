"""How a model writes a call, as its own chat template declares it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, TypeAlias

from model_runtime.errors import TemplateError

#: As a template is rendered: messages, tools, whether to add the generation prompt. Raises TemplateError.
Render: TypeAlias = Callable[[list[dict[str, Any]], list[dict[str, Any]], bool], str]


@dataclass(frozen=True, slots=True)
class ToolSyntax:
    """A call is `begin`, a JSON object with a name and arguments (or a list of such, where `listed`), `end`.

    `begin` and `end` are without the blanks around them, which models vary. Both are empty where a call is an answer
    that is nothing but such an object.
    """

    begin: str
    end: str
    name_key: str = "name"
    arguments_key: str = "arguments"
    listed: bool = False


#: What Hermes and Qwen models were trained on, and what is described in words to models that were trained on none.
HERMES = ToolSyntax("<tool_call>", "</tool_call>")

_NAME, _KEY, _VALUE, _SAID = "pd_probe_tool", "pd_probe_key", "pd_probe_value", "pd_probe_said"
_ARGUMENTS_KEYS = ("arguments", "parameters", "args")


def declared_by(render: Render, specials: Collection[str]) -> ToolSyntax | None:
    """What a template writes for a call, found by letting it write one. None where it shows the model no tools, or
    writes calls in a way that is no JSON object with a name and arguments.

    `specials` are the texts of special tokens: they add nothing to a text, so no call can be told by them.
    """
    user = {"role": "user", "content": "?"}
    parameters = {"type": "object", "properties": {_KEY: {"type": "string"}}}
    tool = {"type": "function", "function": {"name": _NAME, "description": "", "parameters": parameters}}
    # Some templates want ids of nine characters.
    call = {"id": "pdprobe00", "type": "function", "function": {"name": _NAME, "arguments": {_KEY: _VALUE}}}
    try:
        if _NAME not in render([user], [tool], True):
            return None
        plain = render([user, {"role": "assistant", "content": _SAID}], [tool], False)
        written = render([user, {"role": "assistant", "content": "", "tool_calls": [call]}], [tool], False)
    except TemplateError:
        return None
    before, _, after = plain.rpartition(_SAID)
    return _read(written, _common(before, written), _common(after[::-1], written[::-1]), specials)


def _common(a: str, b: str) -> int:
    """How many characters both begin with."""
    return next((index for index, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _read(written: str, prefix: int, suffix: int, specials: Collection[str]) -> ToolSyntax | None:
    """`prefix` and `suffix`: characters around the call that are around any answer."""
    found = _object_around(written, written.rfind(_NAME))
    if found is None:
        return None
    start, end, value = found
    arguments_key = next((key for key in _ARGUMENTS_KEYS if value.get(key) == {_KEY: _VALUE}), None)
    name_key = next((key for key, inner in value.items() if inner == _NAME), None)
    if arguments_key is None or name_key is None:
        return None
    before, after = written[min(prefix, start) : start], written[end : max(end, len(written) - suffix)]
    for text in specials:
        before, after = before.replace(text, ""), after.replace(text, "")
    before, after = before.strip(), after.strip()
    listed = before.endswith("[") and after.startswith("]")
    if listed:
        before, after = before[:-1].rstrip(), after[1:].lstrip()
    return ToolSyntax(before, after, name_key, arguments_key, listed)


def _object_around(text: str, place: int) -> tuple[int, int, dict[str, Any]] | None:
    """The JSON object that `place` is directly in."""
    decoder = json.JSONDecoder()
    for start in reversed([match.start() for match in re.finditer(r"\{", text[: max(place, 0)])]):
        try:
            value, end = decoder.raw_decode(text, start)
        except ValueError:
            continue
        if isinstance(value, dict) and end > place:
            return start, end, value
    return None
