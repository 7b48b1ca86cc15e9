"""The report's plots as SVG, drawn here so that the report needs nothing but itself."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 640, 300, 64, 150, 16, 44
#: Okabe and Ito's palette, which people see apart whatever their colour vision.
COLOURS = ("#000000", "#999999", "#e69f00", "#d55e00", "#cc79a7", "#56b4e9", "#0072b2", "#009e73")


@dataclass(frozen=True, slots=True)
class Series:
    """`values` are x for even shares of 0 to 1."""

    name: str
    values: Sequence[float]


@dataclass(frozen=True, slots=True)
class Bar:
    """`value` None: there is none to show, for the reason in `note`. `mark`: a line across, at the bound."""

    name: str
    value: float | None
    mark: float | None = None
    note: str = ""


def distribution(series: Sequence[Series], unit: str) -> str:
    """Cumulative distributions over a logarithmic axis: the share of answers at or below each value."""
    known = [each for each in series if each.values]
    if not known:
        return ""
    low = max(1e-3, min(min(each.values) for each in known))
    high = max(*(max(each.values) for each in known), low * 10)
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    width, height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def x(value: float) -> float:
        return LEFT + width * (math.log10(max(value, 10.0**first)) - first) / (last - first)

    parts = []
    for power in range(first, last + 1):
        at = x(10.0**power)
        parts.append(_line(at, TOP, at, TOP + height, "grid"))
        parts.append(_text(at, TOP + height + 16, f"{10.0**power:g}", "middle"))
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        at = TOP + height * (1 - share)
        parts.append(_line(LEFT, at, LEFT + width, at, "grid"))
        parts.append(_text(LEFT - 8, at + 4, f"{share:.0%}", "end"))
    for index, each in enumerate(known):
        colour = COLOURS[index % len(COLOURS)]
        count = len(each.values) - 1
        points = " ".join(
            f"{x(value):.1f},{TOP + height * (1 - rank / count):.1f}" for rank, value in enumerate(each.values)
        )
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts.append(_swatch(index, each.name, colour))
    parts.append(_text(LEFT + width / 2, HEIGHT - 8, unit, "middle"))
    return _svg("".join(parts), HEIGHT)


def bars(items: Sequence[Bar], unit: str) -> str:
    """Horizontal, from 0."""
    values = [value for bar in items for value in (bar.value, bar.mark) if value is not None]
    top = max(values, default=0.0) or 1.0
    row, left = 30, 120
    height, width = TOP + row * len(items) + BOTTOM, WIDTH - left - 90
    parts = []
    step = 10 ** math.floor(math.log10(top))
    step = step if top / step > 2 else step / 5
    for index in range(math.floor(top / step) + 1):
        at = left + width * index * step / top
        parts.append(_line(at, TOP, at, height - BOTTOM, "grid"))
        parts.append(_text(at, height - BOTTOM + 16, f"{index * step:g}", "middle"))
    for index, bar in enumerate(items):
        y = TOP + row * index
        parts.append(_text(left - 8, y + 19, bar.name, "end"))
        if bar.value is None:
            parts.append(_text(left + 6, y + 19, bar.note, "start"))
            continue
        length = width * bar.value / top
        colour = COLOURS[index % len(COLOURS)]
        parts.append(f'<rect x="{left}" y="{y + 5}" width="{length:.1f}" height="{row - 10}" fill="{colour}"/>')
        label = left + max(length, width * (bar.mark or 0.0) / top) + 8
        parts.append(_text(label, y + 19, f"{bar.value:,.3g}{bar.note}", "start"))
        if bar.mark is not None:
            at = left + width * bar.mark / top
            parts.append(f'<line x1="{at:.1f}" y1="{y + 1}" x2="{at:.1f}" y2="{y + row - 1}" class="mark"/>')
    parts.append(_text(left + width / 2, height - 8, unit, "middle"))
    return _svg("".join(parts), height)


def _svg(inside: str, height: float) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {height:g}" role="img">{inside}</svg>'


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"/>'


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _swatch(index: int, name: str, colour: str) -> str:
    y = TOP + 8 + 20 * index
    x = WIDTH - RIGHT + 14
    return f'<rect x="{x}" y="{y - 8}" width="14" height="4" fill="{colour}"/>' + _text(x + 22, y, name, "start")
