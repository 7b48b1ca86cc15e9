"""Tools: described to a model by its chat template, its calls read back from the text, wherever that was split."""

from model_runtime.tools.reader import CallArguments, CallBegun, CallEnded, CallReader, Part
from model_runtime.tools.spec import Only, Tool, ToolCall, ToolChoice
from model_runtime.tools.syntax import HERMES, ToolSyntax

__all__ = [
    "HERMES",
    "CallArguments",
    "CallBegun",
    "CallEnded",
    "CallReader",
    "Only",
    "Part",
    "Tool",
    "ToolCall",
    "ToolChoice",
    "ToolSyntax",
]
