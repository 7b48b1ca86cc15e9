"""How attention is best turned into importance: evidence recall by rows, heads and pooling, on training logbooks.

What came of it stands in docs/log.md; `pd-cloud calibrate` chooses a model's heads in a like way, on any text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.refining.cases import training_logbooks
from benchmarks.refining.quality import look, recall, text_of
from cloud_service.refinement.attention import asking_rows, default_layers
from cloud_service.refinement.baselines.by_unit import parts, spread
from cloud_service.refinement.contract import Needs
from cloud_service.refinement.selection import RUN, importance, select

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from benchmarks.refining.cases import Case
    from cloud_service.refinement.attention import Head
    from demos.training.logbook import QuestionKind
    from model_runtime.core import Engine, FloatArray

KINDS: tuple[QuestionKind, ...] = ("lookup", "report")
RATIOS = (0.1, 0.25)
_ROWS = 24
_RUNS = (1, 4, 8, 16, 64)
#: (heads, rows, tokens) to (tokens,).
_POOLS: dict[str, Callable[[FloatArray], FloatArray]] = {
    "max over rows, mean over heads": lambda seen: seen.max(axis=1).mean(axis=0),
    "mean over rows and heads": lambda seen: seen.mean(axis=(0, 1)),
    "mean over rows of max over heads": lambda seen: seen.max(axis=0).mean(axis=0),
    "max over rows and heads": lambda seen: seen.max(axis=(0, 1)),
    "last row, mean over heads": lambda seen: seen[:, -1].mean(axis=0),
}


@dataclass(frozen=True, slots=True)
class Recipe:
    name: str
    heads: Sequence[Head]
    pool: str = "max over rows, mean over heads"
    run: int = RUN


@dataclass(frozen=True, slots=True)
class _Look:
    case: Case
    #: (layers, heads, rows, tokens), rows that ask nothing and what special tokens attract left out.
    seen: FloatArray

    def recall(self, recipe: Recipe, ratio: float) -> float:
        picked = np.stack([self.seen[layer, head] for layer, head in recipe.heads])
        scores = _POOLS[recipe.pool](picked)
        _, _, found = parts(self.case.prompt)
        values = (float(importance(scores, unit, recipe.run)) for unit in found)
        kept = select(self.case.prompt, spread(self.case.prompt, found, values), ratio)
        return recall(self.case, text_of(self.case.prompt, kept))


def measure(engine: Engine, lengths: Sequence[int], count: int, seed: int) -> Iterator[str]:
    """Single heads are ranked on every second case of a kind; everything is measured on the others."""
    everything = tuple(range(engine.info.layers))
    looks = [
        _look(engine, case, everything)
        for length in lengths
        for kind in KINDS
        for case in training_logbooks(engine.tokenizer, kind, length, count, seed)
    ]
    every = [(layer, head) for layer in everything for head in range(engine.info.heads)]
    usual = [(layer, head) for layer, head in every if layer in default_layers(engine.info.layers)]
    ranked = sorted(every, key=lambda head: -_mean(looks[::2], Recipe("", [head]), None, 0.1))
    recipes = [
        *(Recipe(f"default layers, {name}", usual, name) for name in _POOLS),
        *(Recipe(f"layer {layer}", [head for head in every if head[0] == layer]) for layer in everything),
        Recipe("all layers", every),
        *(Recipe(f"best {best} heads", ranked[:best]) for best in (1, 2, 4, 8)),
        *(Recipe(f"default layers, best run of {run}", usual, run=run) for run in _RUNS),
        *(Recipe(f"best 2 heads, best run of {run}", ranked[:2], run=run) for run in _RUNS),
    ]
    yield f"evidence recall, training split, {len(looks[1::2])} cases; best heads: {ranked[:8]}"
    yield f"{'':<52}" + "".join(f"{kind:>8} {ratio:4.0%}" for kind in KINDS for ratio in RATIOS)
    for recipe in recipes:
        figures = (_mean(looks[1::2], recipe, kind, ratio) for kind in KINDS for ratio in RATIOS)
        yield f"{recipe.name:<52}" + "".join(f"{figure:13.0%}" for figure in figures)


def _look(engine: Engine, case: Case, layers: tuple[int, ...]) -> _Look:
    evidence, _ = look(engine, case.prompt, Needs(layers, prompt_rows=_ROWS))
    if evidence.attention is None:
        raise ValueError(f"{engine.info.engine} shows no attention of this model")
    pieces = case.prompt.pieces
    seen = evidence.attention[:, :, asking_rows(pieces, evidence.attention.shape[2])]
    seen[..., [at for at, piece in enumerate(pieces) if not piece or at == 0]] = 0
    return _Look(case, seen)


def _mean(looks: Sequence[_Look], recipe: Recipe, kind: str | None, ratio: float) -> float:
    return float(np.mean([each.recall(recipe, ratio) for each in looks if kind in {None, each.case.kind}]))
