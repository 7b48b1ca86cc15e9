"""What a chat completion asks of the answer's form: its prompt with the tools described, and what holds it."""

from __future__ import annotations

from dataclasses import dataclass

from http_api.openai.chat import ChatRequest
from http_api.openai.errors import ApiError
from http_api.openai.tools import choice_of, constraint_of
from model_runtime.constraint import compile_constraint
from model_runtime.constraint.thinking import after_thinking
from model_runtime.core import Tokenizer
from model_runtime.errors import BadInputError
from model_runtime.tools.forcing import constraint_with, offered
from model_runtime.tools.reader import CallReader
from model_runtime.tools.spec import Tool
from model_runtime.tools.syntax import ToolSyntax
from wire_protocol.messages import Constraint


@dataclass(frozen=True, slots=True)
class Shape:
    prompt: tuple[int, ...]
    tools: tuple[Tool, ...]
    syntax: ToolSyntax
    constraint: Constraint | None

    def reader(self) -> CallReader | None:
        """Finds calls in the answer; None where the model is told of no tools."""
        return CallReader([tool.name for tool in self.tools], self.syntax) if self.tools else None


def shape_of(asked: ChatRequest, tokenizer: Tokenizer, *, holds_constraints: bool) -> Shape:
    """Renders, tokenizes and compiles, which may take some milliseconds; safe on any thread. Raises ApiError."""
    # That one call at most comes is not something that a model can be told, and so not something to leave out unseen.
    if asked.tools and asked.parallel_tool_calls is False:
        text = "parallel_tool_calls: false is not offered here; a tool_choice that names a function gives one call"
        raise ApiError(400, text, param="parallel_tool_calls", code="unsupported_parameter")
    param = "tools"
    try:
        tools = [tool.as_tool() for tool in asked.tools or ()]
        param = "tool_choice"
        told = offered(tools, choice_of(asked.tool_choice))
        param = "response_format"
        syntax = tokenizer.tool_syntax
        constraint = constraint_with(told, choice_of(asked.tool_choice), syntax, constraint_of(asked.response_format))
        param = "messages"
        prompt = tuple(tokenizer.render_chat(asked.chat, tools=told))
        param = "response_format" if asked.response_format is not None else "tools"
        if constraint is not None and holds_constraints:
            constraint = after_thinking(constraint, tokenizer, prompt)
            compile_constraint(constraint, tokenizer)
    except BadInputError as error:
        raise ApiError(400, str(error), param=param, code="invalid_value") from None
    if constraint is not None and not holds_constraints:
        param = "tools" if told else "response_format"
        text = f"{param}: the engine that answers here cannot be held to a schema; strict tools need that, too"
        raise ApiError(400, text, param=param, code="unsupported_parameter")
    on_wire = None if constraint is None else Constraint(constraint.kind, constraint.text)
    return Shape(prompt, told, syntax, on_wire)
