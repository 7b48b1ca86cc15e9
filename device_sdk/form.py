"""What an answer must look like, and which tools it may call: made once for a generation, used by both of its sides."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from model_runtime.constraint import Compiled, Constraint, Matcher, Watch, compile_constraint
from model_runtime.constraint.thinking import after_thinking
from model_runtime.core import Message, Tokenizer
from model_runtime.tools.forcing import constraint_with, offered
from model_runtime.tools.hermes import as_plain_messages
from model_runtime.tools.messages import speaks_of_tools
from model_runtime.tools.reader import CallReader
from model_runtime.tools.spec import Tool, ToolChoice
from model_runtime.tools.syntax import HERMES, ToolSyntax
from wire_protocol import messages as wire


@dataclass(frozen=True, slots=True)
class Form:
    """The default leaves the answer free. `constraint` holds on both sides; `compiled` over the device's tokenizer."""

    tools: tuple[Tool, ...] = ()
    syntax: ToolSyntax = HERMES
    constraint: Constraint | None = None
    compiled: Compiled | None = None

    def rule(self) -> Matcher | None:
        """For the device's sampler."""
        return None if self.compiled is None else self.compiled.start()

    def watch(self) -> Watch | None:
        """For what the cloud sends."""
        return None if self.constraint is None else Watch(self.constraint)

    def reader(self) -> CallReader | None:
        """For the text; None where the model was told of no tools."""
        return CallReader([tool.name for tool in self.tools], self.syntax) if self.tools else None

    def on_wire(self) -> wire.Constraint | None:
        return None if self.constraint is None else wire.Constraint(self.constraint.kind, self.constraint.text)

    def as_text(self, messages: Sequence[Message]) -> Sequence[Message]:
        """For a cloud whose template is another: what both sides write must be the same, so tools are put in words."""
        return as_plain_messages(messages, self.tools) if self.rewords(messages) else messages

    def rewords(self, messages: Sequence[Message]) -> bool:
        """Whether `as_text` changes them."""
        return bool(self.tools) or speaks_of_tools(messages)


def form_of(
    response_format: Constraint | None,
    tools: Iterable[Tool],
    choice: ToolChoice,
    tokenizer: Tokenizer | None,
    render: Callable[[Sequence[Tool]], Sequence[int]] = lambda _: (),
) -> Form:
    """`tokenizer`: the device's; None without one. `render` gives the prompt's ids with tools described. May
    take a second: not for the event loop's thread. Raises BadInputError: ConstraintError for what cannot be held,
    ConstraintUnavailableError where the extra is missing."""
    told = offered(tuple(tools), choice)
    syntax = HERMES if tokenizer is None else tokenizer.tool_syntax
    constraint = constraint_with(told, choice, syntax, response_format)
    if constraint is None:
        return Form(told, syntax)
    if tokenizer is not None and tokenizer.thinking is not None:
        constraint = after_thinking(constraint, tokenizer, render(told))
    Watch(constraint)  # Refused before anything is started, also where only the cloud would hold it.
    compiled = None if tokenizer is None else compile_constraint(constraint, tokenizer)
    return Form(told, syntax, constraint, compiled)
