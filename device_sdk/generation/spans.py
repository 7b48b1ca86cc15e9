"""Sets of positions as spans: half-open, in order, disjoint. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

Span: TypeAlias = tuple[int, int]
Spans: TypeAlias = tuple[Span, ...]


def union(*sets: Iterable[Span]) -> Spans:
    """Of spans in any order, overlapping or empty."""
    merged: list[Span] = []
    for start, end in sorted(span for spans in sets for span in spans if span[0] < span[1]):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((start, end))
    return tuple(merged)


def within(spans: Iterable[Span], start: int, end: int) -> Spans:
    """The parts of `spans` in [start, end)."""
    return union((max(a, start), min(b, end)) for a, b in spans)


def outside(spans: Iterable[Span], length: int) -> Spans:
    """What of [0, length) is in none of `spans`."""
    borders = [0, *(border for span in within(spans, 0, length) for border in span), length]
    return union(zip(borders[::2], borders[1::2], strict=True))


def common(a: Iterable[Span], b: Iterable[Span], length: int) -> Spans:
    """What of [0, length) is in both."""
    return outside(union(outside(a, length), outside(b, length)), length)


def first(spans: Spans, count: int) -> Spans:
    """The first `count` positions."""
    found: list[Span] = []
    for start, end in spans:
        if count <= 0:
            break
        found.append((start, min(end, start + count)))
        count -= end - start
    return tuple(found)


def size(spans: Iterable[Span]) -> int:
    """Positions in disjoint spans."""
    return sum(end - start for start, end in spans)
