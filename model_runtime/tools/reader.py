"""Finds the calls in an answer's text as it arrives, wherever it was split. Pure."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import TypeAlias

from model_runtime.tools.objects import ObjectReader
from model_runtime.tools.spec import ToolCall
from model_runtime.tools.syntax import HERMES, ToolSyntax


@dataclass(frozen=True, slots=True)
class CallBegun:
    """Call `position` of the answer, counted from 0, is of tool `name`; its arguments follow."""

    position: int
    id: str
    name: str


@dataclass(frozen=True, slots=True)
class CallArguments:
    """`text` goes on with the arguments of call `position`: all pieces, one after the other, are their JSON."""

    position: int
    text: str


@dataclass(frozen=True, slots=True)
class CallEnded:
    """Call `position` is whole, unless the answer was cut off within it."""

    position: int
    call: ToolCall


#: Text is what is no part of a call.
Part: TypeAlias = str | CallBegun | CallArguments | CallEnded


def new_call_id() -> str:
    """As OpenAI's look."""
    return f"call_{secrets.token_hex(12)}"


@dataclass(slots=True)
class CallReader:
    """Reads one answer. `tools`: names; where no tag marks a call, only a call of one of them is told from other JSON.

    Understands the model's own `syntax`, and the tags that are described to models without one (HERMES): where the two
    sides of a split differ, an answer may begin in either. Blanks around a call are dropped. What looks like a call
    and turns out to be none is text.
    """

    tools: Collection[str]
    syntax: ToolSyntax = HERMES
    new_id: Callable[[], str] = new_call_id
    calls: list[ToolCall] = field(default_factory=list)
    #: What was given out as text so far.
    text: str = ""
    _buffer: str = ""
    #: Whose opening was read and whose end was not.
    _open: ToolSyntax | None = None
    _in_list: bool = False
    #: An object of the open one was read.
    _after: bool = False
    _call: _Call | None = None

    def push(self, text: str) -> list[Part]:
        """What `text` adds; may be nothing, while what it begins is open."""
        self._buffer += text
        parts: list[Part] = []
        while self._buffer and (more := self._advance()) is not None:
            parts += more
            self._note(more)
        return [part for part in parts if part != ""]

    def end(self) -> list[Part]:
        """No more is coming: what was held back, and the call that was cut off."""
        parts: list[Part] = []
        if self._call is not None:
            parts = self._call.cut()
        elif self._open is not None:
            parts = [] if self._after else [self._open.begin + self._buffer]
        elif self._buffer.strip() or not self.calls:
            parts = [self._buffer]
        self._buffer, self._call, self._open = "", None, None
        self._note(parts)
        return [part for part in parts if part != ""]

    def _note(self, parts: list[Part]) -> None:
        self.calls += [part.call for part in parts if isinstance(part, CallEnded)]
        self.text += "".join(part for part in parts if isinstance(part, str))

    def _advance(self) -> list[Part] | None:
        """Takes a step; None where more text is needed for one."""
        if self._call is not None:
            return self._go_on(self._call)
        if self._open is None:
            return self._search()
        body = self._buffer.lstrip()
        if not body:
            return None
        return self._behind(self._open, body) if self._after else self._expect_object(self._open, body)

    def _search(self) -> list[Part] | None:
        """For the opening of a call."""
        buffer = self._buffer
        marks = {syntax.begin: syntax for syntax in (HERMES, self.syntax) if syntax.begin}
        places = [(place, mark) for mark in marks if (place := buffer.find(mark)) >= 0]
        if places:
            place, mark = min(places)
            self._opened(marks[mark], buffer[place + len(mark) :])
            return [buffer[:place].rstrip()]
        opening = buffer.lstrip()
        bare = not self.syntax.begin and not self.text.strip()
        if bare and opening[:1] in ("{", "[" if self.syntax.listed else "{"):
            self._opened(self.syntax, opening)
            return []
        # Blanks may be those before a call, and what ends the text may be the beginning of a tag.
        longest = min(max(map(len, marks)) - 1, len(buffer))
        held = next((n for n in range(longest, 0, -1) if any(mark.startswith(buffer[-n:]) for mark in marks)), 0)
        safe = buffer[: len(buffer) - held].rstrip()
        self._buffer = buffer[len(safe) :]
        return [safe] if safe else None

    def _opened(self, syntax: ToolSyntax, rest: str) -> None:
        self._open, self._in_list, self._after, self._buffer = syntax, False, False, rest

    def _expect_object(self, syntax: ToolSyntax, body: str) -> list[Part]:
        if body[0] == "[" and syntax.listed and not self._in_list:
            self._in_list, self._buffer = True, body[1:]
        elif body[0] == "{":
            self._call = _Call(syntax, len(self.calls), self.new_id(), () if syntax.begin else tuple(self.tools))
            self._buffer = body
        else:
            self._open = None
            return [syntax.begin + "[" * self._in_list]
        return []

    def _behind(self, syntax: ToolSyntax, body: str) -> list[Part] | None:
        if self._in_list and body[0] in ",]":
            self._in_list = body[0] == ","
            self._after = not self._in_list
            self._buffer = body[1:]
            return []
        if syntax.end.startswith(body) and body != syntax.end:
            return None
        self._open = None
        if syntax.end and body.startswith(syntax.end):
            self._buffer = body.removeprefix(syntax.end)
        return []

    def _go_on(self, call: _Call) -> list[Part] | None:
        parts, used = call.push(self._buffer)
        self._buffer = self._buffer[used:]
        if not call.over:
            return parts or None
        self._call, self._after = None, True
        if call.failed:
            self._open = None
        return parts


class _Call:
    """One call under way: its JSON object."""

    def __init__(self, syntax: ToolSyntax, position: int, id_: str, known: tuple[str, ...]) -> None:
        self.over = False
        #: It is no call after all; its text was given back.
        self.failed = False
        self._syntax = syntax
        self._position = position
        self._id = id_
        #: Names that a call may have; any where there are none.
        self._known = known
        self._raw = ""
        self._object = ObjectReader()
        self._begun = False
        self._sent = 0

    def push(self, text: str) -> tuple[list[Part], int]:
        """The parts, and how many characters of `text` belong to the call."""
        used = self._object.push(text)
        self._raw += text[:used]
        parts = self._progress()
        whole = self._object.complete
        if self._object.broken or self._is_something_else() or (whole and not self._begun):
            self.over = self.failed = True
            # What has begun as a call cannot be taken back.
            return ([*parts, self._end()] if self._begun else [self._syntax.begin + self._raw]), used
        if whole:
            self.over = True
            if not self._sent:
                parts.append(CallArguments(self._position, "{}"))
            parts.append(self._end())
        return parts, used

    def cut(self) -> list[Part]:
        """The answer ended here."""
        return [self._end()] if self._begun else [self._syntax.begin + self._raw]

    def _is_something_else(self) -> bool:
        if self._begun or not self._known:
            return False
        name = self._name()
        keys = {*self._object.values, self._object.open_value[0]} - {""}
        return bool(name and name not in self._known) or not keys <= {
            self._syntax.name_key,
            self._syntax.arguments_key,
            "type",
            "id",
        }

    def _progress(self) -> list[Part]:
        parts: list[Part] = []
        name = self._name()
        if not self._begun and name and (not self._known or name in self._known):
            self._begun = True
            parts.append(CallBegun(self._position, self._id, name))
        arguments = self._arguments()
        if self._begun and len(arguments) > self._sent:
            parts.append(CallArguments(self._position, arguments[self._sent :]))
            self._sent = len(arguments)
        return parts

    def _end(self) -> CallEnded:
        whole = "{}" if self._object.complete else ""
        return CallEnded(self._position, ToolCall(self._id, self._name(), self._arguments() or whole))

    def _name(self) -> str:
        name = json.loads(self._object.values.get(self._syntax.name_key, '""'))
        return name if isinstance(name, str) else ""

    def _arguments(self) -> str:
        """As far as they have come. Some models write them as JSON in a string, which is known once that is whole."""
        raw = self._object.values.get(self._syntax.arguments_key, "")
        if not raw:
            key, raw = self._object.open_value
            return raw if key == self._syntax.arguments_key and not raw.startswith('"') else ""
        return str(json.loads(raw)) if raw.startswith('"') else raw
