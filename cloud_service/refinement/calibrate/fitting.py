"""From what the probes showed to heads and a boundary. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import compress

import numpy as np
from numpy.typing import NDArray

from cloud_service.refinement.answer_attention import sharpened
from cloud_service.refinement.attention import Head
from cloud_service.refinement.calibrate.looking import Look
from cloud_service.refinement.contract import Span
from cloud_service.refinement.floors import Floors
from cloud_service.refinement.guard import FITTED_AT, Boundary, Figures, Guard, figures_of
from cloud_service.refinement.selection import LEAST_UNITS, importance, select
from model_runtime.core import FloatArray

#: Heads whose regard the guard looks at.
WATCHED = 8

#: At most so many heads, chosen from the best of so many single ones.
HEADS, CANDIDATES = 8, 32
#: What a further head must add to the mean average precision.
_WORTH = 0.002

#: Fewer probes of a kind than this cannot say how far below the best line the others may be.
LEAST_KIND = 8
#: A floor is set so that of the probes it was set on, this share lose a line to it, and then at half of that: of words
#: that were in no probe, what an answer rests on stands out less (docs/log.md).
_LOST, _MARGIN = 0.05, 0.5

_STEPS, _RATE, _SHRINK = 2_000, 0.5, 0.01


def best_heads(looks: Sequence[Look]) -> tuple[tuple[Head, ...], float]:
    """The heads that together rank the evidence highest, the best first, and their mean average precision. Greedy:
    each further head is the one that helps most."""
    found = [look for look in looks if look.evidence.any()]
    if not found:
        raise ValueError("no probe has evidence that could be found")
    by_probe = [(_unit_values(look, look.weights), look.evidence) for look in found]
    shape = looks[0].weights.shape

    def precision(chosen: list[int]) -> float:
        return float(np.mean([_average_precision(values[chosen].mean(0), truth) for values, truth in by_probe]))

    return _greedy(precision, shape[0], shape[1], 0.0)


def best_answer_heads(looks: Sequence[Look], heads: Sequence[Head]) -> tuple[Head, ...]:
    """The heads whose view of the answer's first tokens sharpens what `heads` found the most; none where none does."""
    found = [look for look in looks if look.evidence.any()]
    earlier = [scores_of(look, heads) for look in found]
    by_probe = [look.answer.reshape(-1, look.answer.shape[-1]) for look in found]
    shape = looks[0].answer.shape

    def precision(chosen: list[int]) -> float:
        return float(
            np.mean(
                [
                    _precision_of(look, sharpened(before, seen[chosen].mean(0)))
                    for look, before, seen in zip(found, earlier, by_probe, strict=True)
                ]
            )
        )

    before = precision_of(found, heads)
    return _greedy(precision, shape[0], shape[1], before)[0]


def precision_of(looks: Sequence[Look], heads: Sequence[Head], answer_heads: Sequence[Head] = ()) -> float:
    """The mean average precision on the probes with evidence, with the second stage where it has heads."""
    found = [look for look in looks if look.evidence.any()]
    return float(np.mean([_precision_of(look, scores_of(look, heads, answer_heads)) for look in found]))


def _greedy(
    precision: Callable[[list[int]], float], layers: int, heads: int, before: float
) -> tuple[tuple[Head, ...], float]:
    """Heads added one by one, each the one that helps most, while the precision rises from `before`."""
    alone = [precision([head]) for head in range(layers * heads)]
    candidates = [int(head) for head in np.argsort(alone)[::-1][:CANDIDATES]]
    chosen: list[int] = []
    reached = before
    while len(chosen) < HEADS and (rest := [head for head in candidates if head not in chosen]):
        further = max(rest, key=lambda head: precision([*chosen, head]))
        if (gained := precision([*chosen, further])) < reached + _WORTH:
            break
        chosen.append(further)
        reached = gained
    return tuple((head // heads, head % heads) for head in chosen), reached


def scores_of(look: Look, heads: Sequence[Head], answer_heads: Sequence[Head] = ()) -> FloatArray:
    """What the attention scorer gives with these heads, and the second stage after it where it has some."""
    scores = _mean_of(look.weights, heads)
    return sharpened(scores, _mean_of(look.answer, answer_heads)) if answer_heads else scores


def fit_floors(looks: Sequence[Look], heads: Sequence[Head], layers: Collection[int]) -> Floors | None:
    """Floors under which hardly any evidence lies, told apart by heads of `layers`; None where too few probes rest on
    several lines: by questions about one line alone, the second one of two would be left out."""
    several = [look for look in looks if look.evidence.sum() > 1]
    single = [look for look in looks if look.evidence.sum() == 1]
    if len(several) < LEAST_KIND:
        return None
    low = _lowest(several, heads)
    boundary = fit_guard(several, single, heads, layers) if len(single) >= LEAST_KIND else None
    return Floors(low, low if boundary is None else max(low, _lowest(single, heads)), boundary)


def _lowest(looks: Sequence[Look], heads: Sequence[Head]) -> float:
    """Where nearly all evidence lies above, as a share of the best line's importance: one line that is among the best
    few is taken anyway, of several the last may not be."""
    shares = []
    for look in looks:
        values = _importances(look, scores_of(look, heads))
        best, least = float(values.max()), float(values[look.evidence].min())
        anyway = look.evidence.sum() == 1 and np.sum(values >= least) <= LEAST_UNITS
        shares.append(1.0 if anyway else least / best if best > 0 else 0.0)
    return round(_MARGIN * max(0.0, float(np.quantile(shares, _LOST))), 3)


def told_apart(looks: Sequence[Look], heads: Sequence[Head], floors: Floors) -> float:
    """Of the probes with evidence, the share that gets the floor of its kind."""
    hits = [
        (floors.choose(figures(look, heads, floors.heads)) == floors.several) == (look.evidence.sum() > 1)
        for look in looks
        if look.evidence.any()
    ]
    return float(np.mean(hits))


def kept_share(looks: Sequence[Look], heads: Sequence[Head], keep_ratio: float, floors: Floors | None = None) -> float:
    """Of the prompts with evidence, the share of their tokens that is selected, in the mean."""
    shares = [
        sum(stop - start for start, stop in kept) / len(look.prompt.tokens)
        for look, kept in _selected(looks, heads, keep_ratio, (), floors)
    ]
    return float(np.mean(shares))


def recall(
    looks: Sequence[Look],
    heads: Sequence[Head],
    keep_ratio: float,
    answer_heads: Sequence[Head] = (),
    *,
    floors: Floors | None = None,
) -> float:
    """The share of the probes with evidence all of which is selected."""
    hits = []
    for look, kept in _selected(looks, heads, keep_ratio, answer_heads, floors):
        inside = [any(first <= start and end <= last for first, last in kept) for start, end in look.units]
        hits.append(all(compress(inside, look.evidence)))
    return float(np.mean(hits))


def _selected(
    looks: Sequence[Look], heads: Sequence[Head], keep_ratio: float, answer_heads: Sequence[Head], floors: Floors | None
) -> Iterator[tuple[Look, tuple[Span, ...]]]:
    """Each of those with evidence, and what is selected of it."""
    for look in looks:
        if look.evidence.any():
            scores = scores_of(look, heads, answer_heads)
            yield look, select(look.prompt, scores, keep_ratio, _floor(look, heads, floors))


def fit_guard(
    flat: Sequence[Look],
    telling: Sequence[Look],
    heads: Sequence[Head],
    layers: Collection[int] | None = None,
) -> Boundary | None:
    """A boundary between the two, and the heads it looks at (of `layers`, if given); None where there is nothing of
    either."""
    if not flat or not telling:
        return None
    watched = _watched(flat, telling, layers)
    found = [[f for look in some if (f := figures(look, heads, watched))] for some in (flat, telling)]
    if not all(found):
        return None
    weights, bias = fit_line(*(np.array([f.vector() for f in some]) for some in found))
    return Boundary(tuple(weights.tolist()), bias, watched)


def figures(look: Look, heads: Sequence[Head], watched: Sequence[Head]) -> Figures | None:
    scores = scores_of(look, heads)
    regards = tuple(float(look.regards[layer, head]) for layer, head in watched)
    return figures_of(look.prompt, scores, select(look.prompt, scores, FITTED_AT), regards)


def kept_whole(looks: Sequence[Look], heads: Sequence[Head], boundary: Boundary | None) -> float:
    """Of these probes, the share whose prompt the guard keeps whole; NaN for no probes."""
    watched = () if boundary is None else boundary.heads
    verdicts = [Guard(boundary).judge(figures(look, heads, watched)).word == "flat" for look in looks]
    return float(np.mean(verdicts)) if verdicts else math.nan


def fit_line(above: NDArray[np.float64], below: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """Weights and bias of a logistic regression between two sets of points (points, figures), with a little shrinkage;
    both sides weigh the same however many there are."""
    points = np.concatenate([above, below])
    wanted = np.repeat([1.0, 0.0], [len(above), len(below)])
    worth = np.repeat([0.5 / len(above), 0.5 / len(below)], [len(above), len(below)])
    middle, width = points.mean(0), np.maximum(points.std(0), 1e-6)
    normal = (points - middle) / width
    weights, bias = np.zeros(normal.shape[1]), 0.0
    for _ in range(_STEPS):
        error = (1 / (1 + np.exp(-(normal @ weights + bias))) - wanted) * worth
        weights -= _RATE * (normal.T @ error + _SHRINK * weights)
        bias -= _RATE * float(error.sum())
    return weights / width, bias - float(weights / width @ middle)


def _floor(look: Look, heads: Sequence[Head], floors: Floors | None) -> float:
    return 0.0 if floors is None else floors.choose(figures(look, heads, floors.heads))


def _watched(flat: Sequence[Look], telling: Sequence[Look], layers: Collection[int] | None) -> tuple[Head, ...]:
    """The heads whose regard alone tells the two apart best, the best first: by how many of their spreads lie between
    the means (d′), as of several that tell all of these probes apart, one may do so by a hair."""
    above, below = (np.stack([look.regards for look in looks]) for looks in (flat, telling))
    spread = np.sqrt((above.var(0) + below.var(0)) / 2)
    apart = np.abs(above.mean(0) - below.mean(0)) / np.maximum(spread, 1e-6)
    if layers is not None:
        apart[[layer for layer in range(len(apart)) if layer not in layers]] = -1
    order = [at for at in np.argsort(-apart, axis=None, kind="stable")[:WATCHED] if apart.flat[at] >= 0]
    return tuple((int(at) // apart.shape[1], int(at) % apart.shape[1]) for at in order)


def _mean_of(weights: FloatArray, heads: Sequence[Head]) -> FloatArray:
    mean: FloatArray = np.mean([weights[layer, head] for layer, head in heads], axis=0, dtype=np.float32)
    return mean


def _unit_values(look: Look, weights: FloatArray) -> NDArray[np.float32]:
    """(layers × heads, units), as `selection.importance` sees each head alone."""
    flat = weights.reshape(-1, weights.shape[-1])
    return np.stack([importance(flat, unit) for unit in look.units], axis=1)


def _precision_of(look: Look, scores: FloatArray) -> float:
    return _average_precision(_importances(look, scores), look.evidence)


def _importances(look: Look, scores: FloatArray) -> NDArray[np.float32]:
    return np.array([importance(scores, unit) for unit in look.units], np.float32)


def _average_precision(values: NDArray[np.float32], truth: NDArray[np.bool_]) -> float:
    hits = truth[np.argsort(-values, kind="stable")]
    places = np.flatnonzero(hits) + 1
    return float(np.mean(np.arange(1, len(places) + 1) / places))
