"""A score for each line or sentence, as a score for each of its tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cloud_service.refinement.units import layout, units, whole_characters

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cloud_service.refinement.contract import Prompt, Span
    from cloud_service.refinement.units import Layout
    from model_runtime.core import FloatArray


def parts(prompt: Prompt) -> tuple[Layout, tuple[Span, ...], tuple[Span, ...]]:
    """The prompt's text, what is protected (spans that touch are one), and the units to choose from."""
    laid = layout(prompt.pieces)
    protected = whole_characters(laid, prompt.protected)
    return laid, protected, units(prompt, protected, laid)


def spread(prompt: Prompt, found: Iterable[Span], values: Iterable[float]) -> FloatArray:
    """(tokens,): each unit's value on all its tokens, 0 on what is protected."""
    scores = np.zeros(len(prompt.tokens), np.float32)
    for (start, stop), value in zip(found, values, strict=True):
        scores[start:stop] = value
    return scores
