"""Tools in words, for models whose chat template knows none, and for a cloud whose template is another: the Hermes
format, which most models follow when it is described to them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from model_runtime.tools.messages import arguments_of
from model_runtime.tools.syntax import HERMES

if TYPE_CHECKING:
    from model_runtime.core import Message
    from model_runtime.tools.spec import Tool, ToolCall

_PREAMBLE = """# Tools

You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>
{tools}
</tools>

For each function call, return a json object with function name and arguments within {begin}{end} XML tags:
{begin}
{{"name": <function-name>, "arguments": <args-json-object>}}
{end}"""


def as_plain_messages(messages: Sequence[Message], tools: Sequence[Tool]) -> list[Message]:
    """Messages of the roles `system`, `user` and `assistant` alone, contents alone, that say the same."""
    plain: list[Message] = []
    for message in messages:
        role, content = message["role"], message["content"]
        if calls := message.get("tool_calls"):
            content = "\n".join([*([content] if content else []), *map(written, calls)])
        if role == "tool":
            role, content = "user", f"<tool_response>\n{content}\n</tool_response>"
            if plain and plain[-1]["role"] == "user" and plain[-1]["content"].startswith("<tool_response>"):
                # Results of one turn: templates want user and assistant by turns.
                content = f"{plain.pop()['content']}\n{content}"
        plain.append({"role": role, "content": content})
    if tools:
        lines = "\n".join(json.dumps(tool.as_template_sees_it(), ensure_ascii=False) for tool in tools)
        preamble = _PREAMBLE.format(tools=lines, begin=HERMES.begin, end=HERMES.end)
        if plain and plain[0]["role"] == "system":
            plain[0] = {"role": "system", "content": f"{plain[0]['content']}\n\n{preamble}"}
        else:
            plain.insert(0, {"role": "system", "content": preamble})
    return plain


def written(call: ToolCall) -> str:
    """A call as the model writes it."""
    body = json.dumps({"name": call.name, "arguments": arguments_of(call)}, ensure_ascii=False)
    return f"{HERMES.begin}\n{body}\n{HERMES.end}"
