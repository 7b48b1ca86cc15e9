"""Reads one JSON object as its text arrives: which values are whole, and how far the open one has come. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass, field


@dataclass(slots=True)
class ObjectReader:
    """Follows the object's own level; what is inside its values is only counted, not checked."""

    #: By key, the JSON text of each value that is whole.
    values: dict[str, str] = field(default_factory=dict)
    complete: bool = False
    #: This is no JSON object.
    broken: bool = False
    _depth: int = 0
    _in_string: bool = False
    _escaped: bool = False
    _key: str | None = None
    _token: str = ""

    @property
    def open_value(self) -> tuple[str, str]:
        """The key and the text so far of the value under way; empty where there is none."""
        return ("", "") if self._key is None else (self._key, self._token.strip())

    def push(self, text: str) -> int:
        """How many of `text`'s characters belong to the object."""
        for index, character in enumerate(text):
            self._take(character)
            if self.complete or self.broken:
                return index + 1
        return len(text)

    def _take(self, character: str) -> None:
        if self._in_string:
            self._token += character
            if self._escaped:
                self._escaped = False
            elif character == "\\":
                self._escaped = True
            elif character == '"':
                self._in_string = False
            return
        match character:
            case '"':
                self._in_string = True
                self._token += character
            case "{" | "[":
                self._depth += 1
                self._token += character if self._depth > 1 else ""
                self.broken = self._depth == 1 and character == "["
            case "}" | "]" if self._depth > 1:
                self._depth -= 1
                self._token += character
            case "}":
                self._end_value()
                self.complete = not self.broken
            case "," if self._depth == 1:
                self._end_value()
            case ":" if self._depth == 1 and self._key is None:
                self._end_key()
            case "]":
                self.broken = True
            case _ if self._depth == 0:
                self.broken = not character.isspace()
            case _:
                self._token += character

    def _end_key(self) -> None:
        try:
            key = json.loads(self._token)
        except ValueError:
            key = None
        self.broken = not isinstance(key, str)
        self._key, self._token = key, ""

    def _end_value(self) -> None:
        text = self._token.strip()
        if self._key is None:
            self.broken = bool(text)  # `{}` has none
            return
        try:
            json.loads(text)
        except (ValueError, RecursionError):
            self.broken = True
            return
        self.values[self._key] = text
        self._key, self._token = None, ""
