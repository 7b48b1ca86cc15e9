"""Where a prompt may be cut: into lines, or into sentences where a line holds several.

Language-neutral: nothing here knows words. Full stops of many scripts end a sentence, also where no space follows (as
in Chinese); code, tables and JSON are cut by line; a line too long for that at clauses, commas, spaces, and at last at
any character. Never inside a character that several tokens make up.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from cloud_service.refinement.contract import Prompt, Span

#: A longer sentence is cut at the best place near its middle, so that no unit is too large to be chosen.
LARGEST = 64
#: Sentences shorter than this ("Mr.", "e.g.") go with the next of their line.
SMALLEST = 6
#: A line at least so many characters long that the next one goes on in lower case is taken as wrapped, not ended.
_WRAPPED = 40


class Cut(IntEnum):
    """How good a place is for a cut, from inside a character to the end of a line."""

    NEVER = -1
    CHARACTER = 0
    SPACE = 1
    COMMA = 2
    CLAUSE = 3
    SENTENCE = 4
    LINE = 5


_LINE_END = re.compile(r"(?:\r\n?|[\n\f\u0085\u2028\u2029])(?:[ \t]*(?:\r\n?|\n))*")
_CLOSING = "\"'”’»)\\]}」』）】》"
#: Western stops need a space behind them (3.14, example.org); those of other scripts do not.
_SENTENCE_END = re.compile(rf"[.!?…‽]+[{_CLOSING}]*(?=[ \t\u00a0])|[。！？｡।॥؟۔።։។။]+[{_CLOSING}]*")
_CLAUSE_END = re.compile(r"[,;:–—](?=\s)|[、，；：،؛၊]")
_COMMA = re.compile(r"[,;|}\]>](?=\S)")
_SPACE = re.compile(r"(?=\s)")


@dataclass(frozen=True, eq=False)
class Layout:
    """A prompt's text, and where its tokens lie in it."""

    #: Bytes that are no UTF-8 stand as one lone surrogate each.
    text: str
    #: (tokens + 1,): the character at which each token begins, and the end; the next one where it begins inside one.
    edges: NDArray[np.int64]
    #: (tokens + 1,) of `Cut`.
    cuts: NDArray[np.int8]

    def between(self, start: int, stop: int) -> str:
        """The text of tokens `start` to `stop`, which should lie between characters."""
        return self.text[self.edges[start] : self.edges[stop]]


# One prompt is scored, selected from, judged and selected from again.
@lru_cache(maxsize=4)
def layout(pieces: tuple[bytes, ...]) -> Layout:
    data = b"".join(pieces)
    text = data.decode("utf-8", "surrogateescape")
    starts = np.concatenate(([0], np.cumsum(_lengths(text))))
    offsets = np.concatenate(([0], np.cumsum([len(piece) for piece in pieces], dtype=np.int64)))
    edges = np.searchsorted(starts, offsets)
    whole = starts[edges] == offsets
    cuts = np.where(whole, np.int8(Cut.CHARACTER), np.int8(Cut.NEVER))
    for cut, places in _places(text):
        # A token that goes on behind the place belongs to what ends there.
        at = np.searchsorted(edges, places)
        while (split := ~whole[at]).any():  # the last edge is never inside a character
            at = at + split
        cuts[at] = np.maximum(cuts[at], cut)
    return Layout(text, edges, cuts)


def units(prompt: Prompt, protected: Sequence[Span], laid: Layout) -> tuple[Span, ...]:
    """What lies between the `protected` spans, in pieces that are kept or dropped as a whole: in order, disjoint,
    never empty, at most `LARGEST` tokens each but for characters and short rests that do not stand alone."""
    return _units(laid, len(prompt.tokens), tuple(protected))


@lru_cache(maxsize=4)
def _units(laid: Layout, length: int, protected: tuple[Span, ...]) -> tuple[Span, ...]:
    found: list[Span] = []
    position = 0
    for start, stop in [*protected, (length, length)]:
        if position < start:
            found += _joined(laid, [part for part in _sentences(laid, position, start) if part[0] < part[1]])
        position = stop
    return tuple(found)


def whole_characters(laid: Layout, spans: Sequence[Span]) -> tuple[Span, ...]:
    """The spans, widened to whole characters and merged where they meet."""
    found: list[Span] = []
    for start, stop in spans:
        first, last = start, stop
        while laid.cuts[first] == Cut.NEVER:
            first -= 1
        while laid.cuts[last] == Cut.NEVER:
            last += 1
        if found and first <= found[-1][1]:
            found[-1] = (found[-1][0], max(last, found[-1][1]))
        elif first < last:
            found.append((first, last))
    return tuple(found)


def _lengths(text: str) -> NDArray[np.int64]:
    """Bytes of each character."""
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    lengths = 1 + (codes >= 0x80).astype(np.int64) + (codes >= 0x800) + (codes >= 0x10000)
    return np.where((codes >= 0xDC80) & (codes <= 0xDCFF), 1, lengths)


def _places(text: str) -> Iterator[tuple[Cut, list[int]]]:
    ends = {False: list[int](), True: list[int]()}
    for match in _LINE_END.finditer(text):
        ends[_is_wrap(text, match)].append(match.end())
    yield Cut.LINE, ends[False]
    yield Cut.SPACE, ends[True]
    for cut, pattern in (
        (Cut.SENTENCE, _SENTENCE_END),
        (Cut.CLAUSE, _CLAUSE_END),
        (Cut.COMMA, _COMMA),
        (Cut.SPACE, _SPACE),
    ):
        yield cut, [match.end() for match in pattern.finditer(text)]


def _is_wrap(text: str, end: re.Match[str]) -> bool:
    """Whether a sentence goes on behind the end of a line."""
    line = text[text.rfind("\n", 0, end.start()) + 1 : end.start()].rstrip()
    following = text[end.end() : end.end() + 200].lstrip(" \t")[:1]
    ended = not line or line[-1] in ".!?:;{}|"
    return end.group() in {"\n", "\r\n"} and len(line) >= _WRAPPED and not ended and following.islower()


def _sentences(laid: Layout, start: int, stop: int) -> Iterator[Span]:
    inner = np.flatnonzero(laid.cuts[start + 1 : stop] >= Cut.SENTENCE) + start + 1
    edges = [start, *inner.tolist(), stop]
    for first, last in pairwise(edges):
        yield from _halved(laid, first, last)


def _halved(laid: Layout, start: int, stop: int) -> Iterator[Span]:
    """Cut at the best place nearest the middle until nothing is too large."""
    waiting = [(start, stop)]
    while waiting:
        first, last = waiting.pop()
        # Not so near an end that a crumb remains.
        low, high = first + SMALLEST, last - SMALLEST
        inner = laid.cuts[low : high + 1] if last - first > LARGEST else laid.cuts[:0]
        if not inner.size or inner.max() == Cut.NEVER:
            yield first, last
            continue
        best = np.flatnonzero(inner == inner.max()) + low
        middle = int(best[np.abs(2 * best - first - last).argmin()])
        waiting += [(middle, last), (first, middle)]


def _joined(laid: Layout, parts: Sequence[Span]) -> list[Span]:
    """Without sentences too short to stand alone, and without lines that hold no letter or digit."""
    found: list[Span] = []
    for start, stop in parts:
        if found and stop - found[-1][0] <= LARGEST:
            before, _ = found[-1]
            short = min(start - before, stop - start) < SMALLEST
            if (short and laid.cuts[start] < Cut.LINE) or not _says_something(laid.between(start, stop)):
                found[-1] = (before, stop)
                continue
        found.append((start, stop))
    return found


def _says_something(text: str) -> bool:
    return any(character.isalnum() for character in text)
