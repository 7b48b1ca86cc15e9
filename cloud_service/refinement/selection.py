"""From an importance for each token to the spans of a prompt that are kept."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from cloud_service.refinement.joints import mended
from cloud_service.refinement.units import layout, units, whole_characters

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloud_service.refinement.contract import Prompt, Span
    from model_runtime.core import FloatArray

#: A line or sentence matters as much as its best run of so many tokens does on average (docs/log.md). Its best tokens,
#: wherever they stand, favour a line with two words that occur everywhere over one with a name of several tokens.
RUN = 8

#: So many of the best units are taken whatever the floor says: where one towers above all others, as a title that the
#: model falls back on, the rest would stand or fall with it.
LEAST_UNITS = 4


def select(prompt: Prompt, scores: FloatArray, keep_ratio: float, floor: float = 0.0) -> tuple[Span, ...]:
    """The spans to keep, in tokens: half-open, in order, disjoint, covering `prompt.protected`.

    `scores`: (tokens,), finite, more matters more. Whole lines or sentences (`units`) are taken, the best first, as
    long as all that is kept stays within `keep_ratio` (above 0, at most 1) of the prompt's tokens; what is protected,
    and one token for each gap between protected spans, is kept even where that alone is more. No character is cut, and
    what meets where something was left out is still separated (`joints`). Equal scores go in the prompt's order.

    `floor` (at least 0, below 1) is the least share of the best unit's importance at which a unit is taken, room or no
    room: what is beside the point does not only cost reading, it is also confused with what is not. As min-p does for
    tokens, it keeps few lines where few stand out and many where many do. The best `LEAST_UNITS` are taken all the
    same. 0 fills the ratio.

    Raises ValueError for scores, protected spans, a ratio or a floor that are none of that.
    """
    length = len(prompt.tokens)
    _check(prompt, scores, keep_ratio, floor)
    if keep_ratio == 1:
        return ((0, length),) if length else ()
    laid = layout(prompt.pieces)
    protected = whole_characters(laid, prompt.protected)
    ranked = _ranked(scores, units(prompt, protected, laid), floor)
    budget = math.floor(keep_ratio * length + 1e-9)
    # Of a joint's token nothing is known before the choice, so a choice that is too large with it is made anew.
    room = budget - _size(protected)
    while True:
        chosen = _first_fitting(ranked, room)
        kept = mended(prompt, protected, laid, whole_characters(laid, sorted([*protected, *chosen])))
        if not chosen or _size(kept) <= budget:
            return kept
        room = min(room, _size(chosen)) - (_size(kept) - budget)


def importance(scores: FloatArray, unit: Span, run: int = RUN) -> FloatArray:
    """Of a line or sentence: `scores` of shape (…, tokens) to (…,)."""
    start, stop = unit
    run = min(run, stop - start)
    sums = np.cumsum(scores[..., start:stop], axis=-1, dtype=np.float64)
    sums[..., run:] -= sums[..., :-run]
    best: FloatArray = (sums[..., run - 1 :].max(axis=-1) / run).astype(np.float32)
    return best


def _ranked(scores: FloatArray, found: Sequence[Span], floor: float) -> list[Span]:
    """The best first, without those below the floor but for `LEAST_UNITS`."""
    valued = sorted((-float(importance(scores, unit)), unit) for unit in found)
    if not valued or not floor:
        return [unit for _, unit in valued]
    least = floor * max(0.0, -valued[0][0])
    return [unit for rank, (value, unit) in enumerate(valued) if rank < LEAST_UNITS or -value >= least]


def _first_fitting(ranked: Sequence[Span], room: int) -> list[Span]:
    chosen = []
    for unit in ranked:
        size = unit[1] - unit[0]
        if size <= room:
            chosen.append(unit)
            room -= size
    return chosen


def _size(spans: Sequence[Span]) -> int:
    return sum(stop - start for start, stop in spans)


def _check(prompt: Prompt, scores: FloatArray, keep_ratio: float, floor: float) -> None:
    length = len(prompt.tokens)
    if len(prompt.pieces) != length:
        raise ValueError(f"a prompt of {length} tokens needs as many pieces, not {len(prompt.pieces)}")
    if scores.shape != (length,):
        raise ValueError(f"a prompt of {length} tokens needs scores of shape ({length},), not {scores.shape}")
    if not np.isfinite(scores).all():
        raise ValueError("scores must be finite; some are infinite or not a number")
    if not 0 < keep_ratio <= 1:
        raise ValueError(f"keep_ratio must be above 0 and at most 1, not {keep_ratio}")
    if not 0 <= floor < 1:
        raise ValueError(f"floor must be at least 0 and below 1, not {floor}")
    position = 0
    for start, stop in prompt.protected:
        if not position <= start < stop <= length:
            raise ValueError(
                f"protected spans must be in order, disjoint, not empty and within the {length} tokens; "
                f"{(start, stop)} is not"
            )
        position = stop
