"""Text from token bytes: whole characters only, and stop strings found wherever tokens happen to split them."""

from __future__ import annotations

import codecs
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class TextAssembler:
    """Turns bytes that arrive in pieces into text, never half a character.

    However the bytes are split, the text is the same. Bytes that are no UTF-8 become U+FFFD, by Python's own rules.
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, data: bytes) -> str:
        """The characters that `data` completes; may be empty."""
        return self._decoder.decode(data)

    def flush(self) -> str:
        """What is left at the end: U+FFFD for an unfinished character, else nothing. Ready for new text after."""
        rest = self._decoder.decode(b"", final=True)
        self._decoder.reset()
        return rest


class StopStrings:
    """Finds the first stop string in text that arrives in pieces, and holds back only what may become one.

    First is the one that is complete first; of two complete at the same character, the longer. So the outcome does
    not depend on how the text is split. The stop string itself is never shown.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        if not all(stops):
            raise ValueError("a stop string must not be empty: it would stop every answer before it begins")
        self._stops = tuple(stops)
        self._beginnings = frozenset(stop[:size] for stop in stops for size in range(1, len(stop)))
        self._longest = max(map(len, stops), default=0)
        self._held = ""
        self._hit = False

    def push(self, text: str) -> tuple[str, bool]:
        """The text that is safe to show now, and whether a stop string was found (the text before it is safe)."""
        if self._hit:
            return "", True
        buffer = self._held + text
        found = [(start + len(stop), start) for stop in self._stops if (start := buffer.find(stop)) >= 0]
        if found:
            _, start = min(found)
            self._held, self._hit = "", True
            return buffer[:start], True
        longest = min(self._longest - 1, len(buffer))
        held = next((size for size in range(longest, 0, -1) if buffer[-size:] in self._beginnings), 0)
        self._held = buffer[len(buffer) - held :]
        return buffer[: len(buffer) - held], False

    def flush(self) -> str:
        """The text held back, at the end of an answer in which no stop string came."""
        held, self._held = self._held, ""
        return held
