"""Markdown to blocks of HTML that keep who said which word. Grows with a streaming answer: what is whole is kept.

A change of source inside a text is carried through the parser as a private-use character, put where it cannot be
syntax; in the finished HTML each such mark changes the colour of the words behind it.
"""

from __future__ import annotations

import html
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from markdown_it import MarkdownIt

from device_sdk import Source

if TYPE_CHECKING:
    from collections.abc import Sequence

    from markdown_it.token import Token

    from demos.chat.history.records import Run

_MARKS = {Source.CLOUD: "\ue000", Source.DEVICE: "\ue001"}
_SOURCES = {mark: source for source, mark in _MARKS.items()}
_ANY_MARK = re.compile("[\ue000\ue001]")
#: The parser quotes what stands in an address.
_QUOTED_MARK = re.compile("%EE%80%8[01]")
#: Where the device took over.
HAND_OVER = '<span class="handover">\N{NO-BREAK SPACE}⇢\N{NO-BREAK SPACE}</span>'
#: Prose longer than this goes on in a new block, so that a change redraws only the end.
_LONGEST_PROSE = 6_000
_LINE_END = re.compile(r"\r\n?|\n")
_LIST_NUMBER = re.compile(r"\s*\d{1,9}[.)]")
_INSIDE = re.compile(r"\]\([^)\n]*$|<[^>\s]*$|&#?\w*$")


@dataclass(frozen=True, slots=True)
class Prose:
    html: str


@dataclass(frozen=True, slots=True)
class Code:
    language: str
    #: As it is copied.
    text: str
    #: The same, coloured; goes into a `<pre>`.
    html: str


Block: TypeAlias = Prose | Code


class MarkdownStream:
    """Blocks of a text that only grows; any other text starts anew."""

    def __init__(self) -> None:
        # Raw HTML is shown, never obeyed; pictures would be fetched from wherever a model says.
        # A line break is kept, as chat programs do: models write lists line by line.
        self._parser = (
            MarkdownIt("commonmark", {"html": False, "breaks": True})
            .enable(["table", "strikethrough"])
            .disable("image")
        )
        self._text = ""
        self._done: list[Block] = []
        self._done_to = 0
        self._done_runs: tuple[Run, ...] = ()

    def update(self, text: str, runs: Sequence[Run]) -> list[Block]:
        """All blocks of `text`. Costs the time of the last paragraph, list or code block, not of the whole."""
        if not self._grew(text, runs):
            self._done, self._done_to = [], 0
        self._text, self._done_runs = text, tuple(run for run in runs if run.start < self._done_to)
        rest = text[self._done_to :]
        groups = self._groups(rest, runs)
        # A block is whole once another one follows it; but the last line is not: while it grows, what looked like a
        # block of its own may turn out to belong to the one before.
        whole = len(groups) - (1 if groups and "\n" in rest[groups[-1][0] :] else 2)
        for _, block in groups[: max(whole, 0)]:
            _join(self._done, block)
        if whole > 0:
            self._done_to += groups[whole][0]
            self._done_runs = tuple(runs)
        shown = list(self._done)
        for _, block in groups[max(whole, 0) :]:
            _join(shown, block)
        return shown

    def _grew(self, text: str, runs: Sequence[Run]) -> bool:
        same = all(a.source is b.source and a.start == b.start for a, b in zip(self._done_runs, runs, strict=False))
        return same and text.startswith(self._text[: self._done_to])

    def _groups(self, rest: str, runs: Sequence[Run]) -> list[tuple[int, Block]]:
        """(offset in `rest`, block) of each top-level block."""
        # As the parser counts lines, which is not as Python does.
        starts = [0, *(match.end() for match in _LINE_END.finditer(rest))]
        source = _source_at(runs, self._done_to)
        groups: list[tuple[int, Block]] = []
        tokens = self._parser.parse(_marked(rest, runs, self._done_to))
        first = 0
        for index, token in enumerate(tokens):
            if token.level or token.nesting == 1:
                continue
            group, first = tokens[first : index + 1], index + 1
            lines = group[0].map
            offset = starts[min(lines[0], len(starts) - 1)] if lines else 0
            block, source = self._block(group, source)
            groups.append((offset, block))
        return groups

    def _block(self, group: list[Token], source: Source | None) -> tuple[Block, Source | None]:
        token = group[0]
        if token.type in ("fence", "code_block"):
            coloured, after = _coloured(html.escape(token.content.rstrip("\n"), quote=False), source)
            language = _ANY_MARK.sub("", token.info).strip().partition(" ")[0]
            return Code(language, _ANY_MARK.sub("", token.content), coloured), after
        rendered = str(self._parser.renderer.render(group, self._parser.options, {}))
        coloured, after = _coloured(rendered, source)
        return Prose(coloured), after


def _join(blocks: list[Block], block: Block) -> None:
    last = blocks[-1] if blocks else None
    if isinstance(last, Prose) and isinstance(block, Prose) and len(last.html) < _LONGEST_PROSE:
        blocks[-1] = Prose(last.html + block.html)
    else:
        blocks.append(block)


def _source_at(runs: Sequence[Run], offset: int) -> Source | None:
    found = None
    for run in runs:
        if run.start < offset or run.start == 0:
            found = run.source
    return found


def _marked(rest: str, runs: Sequence[Run], offset: int) -> str:
    """`rest`, which begins at `offset` of the text that `runs` describe, with a mark where each later run begins."""
    rest = _ANY_MARK.sub("\N{REPLACEMENT CHARACTER}", rest)
    parts, last = [], 0
    for run in runs:
        start = run.start - offset
        if run.start == 0 or start < 0:
            continue
        at = _safe(rest, max(start, last))
        if at is None:
            break
        parts += [rest[last:at], _MARKS[run.source]]
        last = at
    return "".join([*parts, rest[last:]])


def _safe(text: str, at: int) -> int | None:
    """The first place from `at` on where a character more is no syntax: before a letter or digit of plain text."""
    while at < len(text):
        if text[at].isalnum():
            begin = text.rfind("\n", 0, at) + 1
            end = text.find("\n", at)
            line = text[begin : end if end >= 0 else len(text)]
            number = _LIST_NUMBER.match(line)
            if line.lstrip(" >-*+").startswith(("```", "~~~")):
                at = begin + len(line)
            elif number and at < begin + number.end():
                at = begin + number.end()
            elif not _INSIDE.search(line[: at - begin]):
                return at
        at += 1
    return None


def _coloured(rendered: str, source: Source | None) -> tuple[str, Source | None]:
    """Each piece of text in a span of its source's class; and the source at the end."""
    parts = []
    for piece in re.split(r"(<[^>]*>)", rendered):
        if piece.startswith("<"):
            parts.append(_QUOTED_MARK.sub("", _ANY_MARK.sub("", piece)))
            continue
        for text in re.split("([\ue000\ue001])", piece):
            if text in _SOURCES:
                if source is Source.CLOUD and _SOURCES[text] is Source.DEVICE:
                    parts.append(HAND_OVER)
                source = _SOURCES[text]
            elif text.strip():
                parts.append(f'<span class="{source.value}">{text}</span>' if source else text)
            else:
                parts.append(text)
    return "".join(parts), source
