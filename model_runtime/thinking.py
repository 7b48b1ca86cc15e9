"""Reasoning models: what they think before they answer, told apart from the answer as the text arrives. Pure.

Which tags stand around the thinking is found in the chat template, which takes it out of earlier turns, or opens it for
the answer. Templates with other means (a channel for each part, as in gpt-oss) are not recognised: all is answer there.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from model_runtime.core import Tokenizer


@dataclass(frozen=True, slots=True)
class ThinkingTags:
    """What stands before and after the thinking."""

    opening: str
    closing: str


#: DeepSeek R1, Qwen 3, SmolLM 3 and many others; Magistral; Command A Reasoning; Seed-OSS; others.
KNOWN = (
    ThinkingTags("<think>", "</think>"),
    ThinkingTags("[THINK]", "[/THINK]"),
    ThinkingTags("<|START_THINKING|>", "<|END_THINKING|>"),
    ThinkingTags("<seed:think>", "</seed:think>"),
    ThinkingTags("<thinking>", "</thinking>"),
    ThinkingTags("<reasoning>", "</reasoning>"),
)


def declared_by(template: str) -> ThinkingTags | None:
    """The tags that a chat template's source names; None where it names none."""
    return next((tags for tags in KNOWN if tags.opening in template and tags.closing in template), None)


class _State(enum.Enum):
    #: Nothing but blanks so far: an opening tag may come.
    START = "start"
    THINKING = "thinking"
    #: Behind the closing tag, before the answer's first character: newlines are dropped.
    CLOSED = "closed"
    ANSWER = "answer"


@dataclass(frozen=True, slots=True)
class Parts:
    """What one piece of text adds to the thinking and to the answer."""

    thought: str = ""
    answer: str = ""


class ThinkingReader:
    """Reads one answer. Its thinking comes first, if at all: a tag within the answer is text, such as in an answer
    about tags. However the text is split, the parts are the same.

    `opening` and `closing` are the ids of the tags where they are tokens that add no bytes; else None.
    """

    def __init__(
        self, tags: ThinkingTags, *, begun: bool = False, opening: int | None = None, closing: int | None = None
    ) -> None:
        self._tags = tags
        self._ids = {opening: _State.THINKING, closing: _State.CLOSED}
        self._ids.pop(None, None)
        self._state = _State.THINKING if begun else _State.START
        self._held = ""

    @property
    def answering(self) -> bool:
        """Whether what comes is the answer, for the user to see."""
        return self._state is _State.ANSWER

    @property
    def thinking(self) -> bool:
        """Whether what comes is thinking: at the beginning, where the prompt has opened it."""
        return self._state is _State.THINKING

    def push(self, text: str, token: int | None = None) -> Parts:
        """What `text` adds; what may become a tag is held back. `token`: its id, where ids travel."""
        self._held += text
        thought = answer = ""
        if token in self._ids:
            thought, self._held = (self._held, "") if self._state is _State.THINKING else ("", self._held)
            self._state = self._ids[token]
        if self._state is _State.START:
            self._begin()
        if self._state is _State.THINKING:
            thought += self._think()
        if self._state is _State.CLOSED:
            self._held = self._held.lstrip("\n")
            self._state = _State.ANSWER if self._held else _State.CLOSED
        if self._state is _State.ANSWER:
            answer, self._held = self._held, ""
        return Parts(thought, answer)

    def end(self) -> Parts:
        """What was held back, at the end of the answer."""
        held, self._held = self._held, ""
        return Parts(thought=held) if self._state is _State.THINKING else Parts(answer=held)

    def _begin(self) -> None:
        begun, opening = self._held.lstrip(), self._tags.opening
        if begun.startswith(opening):
            self._held, self._state = begun[len(opening) :], _State.THINKING
        elif not opening.startswith(begun):
            self._state = _State.ANSWER

    def _think(self) -> str:
        closing = self._tags.closing
        before, found, after = self._held.partition(closing)
        if found:
            self._held, self._state = after, _State.CLOSED
            return before
        size = next((n for n in range(len(closing) - 1, 0, -1) if self._held.endswith(closing[:n])), 0)
        cut = len(self._held) - size
        thought, self._held = self._held[:cut], self._held[cut:]
        return thought


def thinking_reader(tokenizer: Tokenizer, prompt: Sequence[int]) -> ThinkingReader | None:
    """For the answer to `prompt`, whose template may have opened the thinking already; None for a model that does not
    think as far as its template says."""
    tags = tokenizer.thinking
    if tags is None:
        return None
    opening, closing = (_silent_id(tokenizer, text) for text in (tags.opening, tags.closing))
    end = len(prompt)
    while end and (data := tokenizer.token_bytes(prompt[end - 1])) and not data.strip():
        end -= 1
    last = b"".join(tokenizer.token_bytes(token) for token in prompt[max(end - len(tags.opening), 0) : end])
    begun = last.rstrip().endswith(tags.opening.encode()) or (end > 0 and prompt[end - 1] == opening)
    return ThinkingReader(tags, begun=begun, opening=opening, closing=closing)


def _silent_id(tokenizer: Tokenizer, text: str) -> int | None:
    """The special token of this text, if there is one."""
    ids = tokenizer.encode(text, special=True)
    return ids[0] if len(ids) == 1 and not tokenizer.token_bytes(ids[0]) else None
