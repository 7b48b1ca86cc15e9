"""When not to refine: a look at the scores themselves. Pure.

A question about one fact makes a few lines stand out; counting, summarising or translating needs all of them, and
leaving lines out would change the answer. How the two differ depends on the model: heads that retrieve find what is
to be counted as sharply as what is to be quoted, and other heads tell the two apart. So `pd-cloud calibrate` fits a
boundary between them (logistic regression over the figures below); without one, a plain rule on how much of the
importance the selection covers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from cloud_service.refinement.attention import Head
from cloud_service.refinement.contract import Prompt, Span
from cloud_service.refinement.selection import importance
from cloud_service.refinement.units import layout, units, whole_characters
from model_runtime.core import FloatArray
from wire_protocol.messages import Guard as Word

#: Without a calibration: the least share of the importance that stands out which the selection must cover.
LEAST_COVERED = 0.6
#: The keep ratio at which boundaries are fitted. Figures are of what this selects, whatever share may be kept: what a
#: question asks for does not depend on that.
FITTED_AT = 0.25

_TINY = 1e-9


@dataclass(frozen=True, slots=True)
class Figures:
    """What the guard looks at: the lines or sentences that could be left out, and what a few heads do."""

    #: Importance of the best unit, as a share of all units'.
    peak: float
    #: The number of units that importance is effectively spread over (inverse participation ratio), as a share of them.
    spread: float
    #: Of the importance that stands out, above twice the median unit's, the share that the selected units hold.
    covered: float
    #: Mean importance of a unit.
    level: float
    #: The prompt's length, which the others depend on.
    tokens: int
    #: Of each of the boundary's heads, the share of attention that the question gives the text.
    regards: tuple[float, ...] = ()

    def vector(self) -> NDArray[np.float64]:
        # Shares in logits, so that 1% and 2% are as far apart as 98% and 99%.
        shares = np.clip([self.peak, self.spread, self.covered, *self.regards], 1e-3, 1 - 1e-3)
        return np.array([math.log(self.tokens), math.log(self.level), *np.log(shares / (1 - shares))])


class Boundary(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Flat where `bias + weights · Figures.vector()` is above 0."""

    weights: tuple[float, ...]
    bias: float
    #: The heads whose regard is among the figures.
    heads: tuple[Head, ...] = ()

    def flatness(self, figures: Figures) -> float:
        return float(self.bias + np.dot(self.weights, figures.vector()))


@dataclass(frozen=True, slots=True)
class Verdict:
    word: Word
    #: For people: what it rests on.
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Guard:
    """Decides whether a selection may stand."""

    boundary: Boundary | None = None

    @property
    def heads(self) -> tuple[Head, ...]:
        """Whose regard it asks for."""
        return () if self.boundary is None else self.boundary.heads

    def judge(self, figures: Figures | None) -> Verdict:
        """Of a selection that leaves something out; None: no unit stands out. Regards are those of `heads`."""
        if figures is None:
            return Verdict("flat", "nothing in the prompt stands out: all scores are equal")
        detail = (
            f"best unit {figures.peak:.1%} of importance, spread over {figures.spread:.0%} of units, "
            f"{figures.covered:.0%} of what stands out selected"
        )
        if self.boundary is None:
            flat = figures.covered < LEAST_COVERED
        else:
            flatness = self.boundary.flatness(figures)
            flat = flatness > 0
            detail += f", {flatness:+.1f} from the calibrated boundary"
        return Verdict("flat" if flat else "passed", detail)


def figures_of(
    prompt: Prompt, scores: FloatArray, kept: Sequence[Span], regards: tuple[float, ...] = ()
) -> Figures | None:
    """Of `kept`, which was selected by `scores`; None where no unit stands out from any other."""
    laid = layout(prompt.pieces)
    found = units(prompt, whole_characters(laid, prompt.protected), laid)
    values = np.array([importance(scores, unit) for unit in found])
    if not values.size:
        return None
    values -= min(0.0, values.min())
    if values.sum() <= 0 or np.ptp(values) <= _TINY * values.max():
        return None
    above = np.maximum(values - 2 * np.median(values), 0)
    chosen = np.zeros(len(prompt.tokens) + 1, bool)
    for start, end in kept:
        chosen[start:end] = True
    taken = np.array([chosen[start] and chosen[end - 1] for start, end in found])
    return Figures(
        peak=float(values.max() / values.sum()),
        spread=float(values.sum() ** 2 / (values**2).sum() / len(values)),
        covered=float(above[taken].sum() / above.sum()) if above.any() else 0.0,
        level=float(values.mean()),
        tokens=len(prompt.tokens),
        regards=regards,
    )
