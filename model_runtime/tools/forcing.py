"""The grammar of an answer that calls tools, where it must, or where arguments are held to their schema."""

from __future__ import annotations

import json
from collections.abc import Sequence

from model_runtime.constraint.lark import json_rule, quoted, rules_of
from model_runtime.constraint.spec import Constraint, Grammar
from model_runtime.errors import BadInputError, ConstraintError
from model_runtime.tools.spec import Only, Tool, ToolChoice
from model_runtime.tools.syntax import ToolSyntax

#: Calls in one answer, where the grammar says how many: a weak model would else never stop calling.
MOST_CALLS = 8
_ANY_OBJECT = {"type": "object"}


def offered(tools: Sequence[Tool], choice: ToolChoice) -> tuple[Tool, ...]:
    """The tools that the model is told of. Raises BadInputError for a choice that the tools do not allow."""
    names = [tool.name for tool in tools]
    if len(set(names)) < len(names):
        raise BadInputError("two tools have the same name")
    match choice:
        case "none":
            return ()
        case "required" if not tools:
            raise BadInputError("a tool call is required, and there are no tools")
        case Only(name=name) if name not in names:
            raise BadInputError(f"the tool that must be called, {name!r}, is none of the tools: {', '.join(names)}")
        case "auto" | "required" | Only():
            return tuple(tools)
    raise BadInputError(f"a tool choice is 'auto', 'none', 'required' or Only(…), not {choice!r}")


def constraint_with(
    tools: Sequence[Tool], choice: ToolChoice, syntax: ToolSyntax, response_format: Constraint | None
) -> Constraint | None:
    """What holds an answer to `choice`, to the schemas of strict tools, and to `response_format` where it is no call.

    None where the model is free. Raises ConstraintError where these cannot be had together.
    """
    if not tools:
        return response_format
    if choice == "auto" and response_format is None and not any(tool.strict for tool in tools):
        return None
    if choice == "auto":
        return _may_call(tools, syntax, response_format)
    if response_format is not None:
        raise ConstraintError("an answer that must be a tool call has no response format: leave one of the two out")
    return _must_call(tools, choice, syntax)


def _must_call(tools: Sequence[Tool], choice: ToolChoice, syntax: ToolSyntax) -> Grammar:
    callable_ = [tool for tool in tools if not isinstance(choice, Only) or tool.name == choice.name]
    most = 1 if isinstance(choice, Only) else MOST_CALLS
    return Grammar("\n".join([f"start: {_calls(syntax, most)}", *_rules(callable_, syntax, held=True)]))


def _may_call(tools: Sequence[Tool], syntax: ToolSyntax, response_format: Constraint | None) -> Grammar:
    if response_format is not None:
        start = [f"start: {_calls(syntax, MOST_CALLS)} | answer", rules_of(response_format, "answer")]
        return Grammar("\n".join([*start, *_rules(tools, syntax, held=False)]))
    if not syntax.begin:  # a call is the whole answer, and begins as no text does
        first = r"\[" if syntax.listed else r"\{"
        start = [f"start: {_calls(syntax, MOST_CALLS)} | TEXT", f"TEXT: /[^{first}](.|\\n)*/"]
        return Grammar("\n".join([*start, *_rules(tools, syntax, held=False)]))
    # `lazy`: the text ends at the first opening of a call, as a model writes it.
    start = [
        "start: (opening body)* TEXT",
        f"opening[lazy]: TEXT {quoted(syntax.begin)}",
        f"body: {_inside(syntax, 1)}",
        "TEXT: /(.|\\n)*/",
    ]
    return Grammar("\n".join([*start, *_rules(tools, syntax, held=False)]))


def _calls(syntax: ToolSyntax, most: int) -> str:
    begin = f"{quoted(syntax.begin)} " if syntax.begin else ""
    if syntax.listed or most == 1 or not syntax.begin:
        return begin + _inside(syntax, most if syntax.listed else 1)
    one = begin + _inside(syntax, 1)
    return f'{one} ("\\n" {one}){{0,{most - 1}}}'


def _inside(syntax: ToolSyntax, most: int) -> str:
    """From behind the opening tag to behind the closing one."""
    blank = '"\\n" ' if syntax.begin else ""
    more = _more('", " call', most - 1)
    calls = f'"[" call{more} "]"' if syntax.listed else "call"
    return f"{blank}{calls}" + (f" {quoted(chr(10) + syntax.end)}" if syntax.end else "")


def _more(what: str, most: int) -> str:
    return f" ({what}){{0,{most}}}" if most else ""


def _rules(tools: Sequence[Tool], syntax: ToolSyntax, *, held: bool) -> list[str]:
    """One for each tool. `held`: to the schema, strict or not."""
    rules = ["call: " + " | ".join(f"call_{number}" for number in range(len(tools)))]
    for number, tool in enumerate(tools):
        schema = json.loads(tool.parameters_text) if held or tool.strict else _ANY_OBJECT
        head = f'{{"{syntax.name_key}": "{tool.name}", "{syntax.arguments_key}": '
        rules.append(f'call_{number}: {quoted(head)} arguments_{number} "}}"')
        rules.append(f"arguments_{number}: {json_rule(schema)}")
    return rules
