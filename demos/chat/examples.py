"""Something to ask on a fresh machine: questions over logbooks that the bundled models have never seen."""

from __future__ import annotations

from dataclasses import dataclass

from demos.chat.history.records import Attachment
from demos.side_by_side.questions import Asked
from demos.side_by_side.questions import bundled as questions

_ASKED = (
    ("A fact in a short log", Asked("lookup", 520)),
    ("A report from a long log", Asked("report", 2_050)),
    ("A fact in a very long log", Asked("lookup", 3_600)),
)
#: The first with which the bundled models are right about all three: the hand-over is to be seen, not their mistakes.
_SEED = 3


@dataclass(frozen=True, slots=True)
class Example:
    title: str
    document: Attachment
    question: str
    #: About so many tokens have to be read for it.
    tokens: int
    #: The exact answer; None where nobody knows it.
    expected: str | None = None


def bundled() -> list[Example]:
    """The same each time. Takes some tenths of a second: not for the screen's thread."""
    asked = questions([item for _, item in _ASKED], _SEED)
    return [
        Example(
            title,
            Attachment(f"Site log {number}.txt", "text", question.document),
            question.text,
            item.prompt_tokens,
            question.expected,
        )
        for number, ((title, item), question) in enumerate(zip(_ASKED, asked, strict=True), start=1)
    ]
