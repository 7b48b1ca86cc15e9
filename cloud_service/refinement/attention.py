"""The serving engine's own attention as a scorer: what the prompt's last tokens look at.

Late rows of early-middle layers point at what a question is about long before the answer is there (GemFilter, arXiv
2409.17422; SpecPrefill, 2502.02789; CLAA, 2602.16054), a few heads far better than the rest (EHPC, 2501.12959).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from cloud_service.refinement.contract import Evidence, Needs, Prompt
from model_runtime.core import FloatArray

#: Query rows: most questions and the template's end fit in.
ROWS = 32

#: Layers without a calibration: so many neighbours, around this depth.
LAYERS = 4
DEPTH = 0.45

#: Stretches of so few bytes between special tokens are a template's ("assistant" and a line end), not a message.
_HEADER = 12

#: (layer, head), both from 0.
Head = tuple[int, int]


def default_layers(layers: int) -> tuple[int, ...]:
    """Of a model with so many."""
    count = min(LAYERS, layers)
    first = min(max(0, round(DEPTH * layers - count / 2)), layers - count)
    return tuple(range(first, first + count))


class AttentionScorer:
    """Of each head the largest weight that any row gives a token, averaged over the heads.

    Rows that belong to the text before the question's line are left out, as they ask for nothing (`asking_rows`).
    What special tokens and the first token attract is not importance but where heads rest (the attention sink): 0.
    """

    name = "attention"

    def __init__(self, layers: Sequence[int], *, heads: Sequence[Head] | None = None, rows: int = ROWS) -> None:
        """`heads`: None for all of `layers`, else those to use, each of one of these layers."""
        self.needs = Needs(tuple(layers), prompt_rows=rows)
        self._heads = None if heads is None else tuple(heads)

    def score(self, prompt: Prompt, evidence: Evidence) -> FloatArray:
        seen = chosen_heads(evidence, self._heads)
        return importance_of(prompt, seen[:, asking_rows(prompt.pieces, seen.shape[1])])

    def regards(self, prompt: Prompt, evidence: Evidence, heads: Sequence[Head]) -> tuple[float, ...]:
        """What the guard asks for, see `regard`; of layers that are tapped."""
        return tuple(map(float, regard(prompt, chosen_heads(evidence, heads))))


def chosen_heads(evidence: Evidence, heads: Sequence[Head] | None) -> FloatArray:
    """(heads, rows, keys) of what was seen. Raises ValueError where that is nothing, or not of these heads."""
    if evidence.attention is None:
        raise ValueError("attention was asked for, and none was seen")
    if heads is None:
        return evidence.attention.reshape(-1, *evidence.attention.shape[2:])
    return np.stack([evidence.attention[evidence.layers.index(layer), head] for layer, head in heads])


def importance_of(prompt: Prompt, attention: FloatArray) -> FloatArray:
    """(prompt tokens,) of (heads, rows, prompt tokens): mean over heads of the maximum over rows, without sinks."""
    return without_sinks(prompt, attention.max(axis=1).mean(axis=0, dtype=np.float32))


def regard(prompt: Prompt, attention: FloatArray) -> FloatArray:
    """(…,) of (…, rows, prompt tokens): how much of their attention the asking rows give the text before them, in the
    mean, sinks left out."""
    rows = attention.shape[-2]
    asking = asking_rows(prompt.pieces, rows)
    before = len(prompt.tokens) - rows + asking[0]
    given: FloatArray = without_sinks(prompt, attention[..., asking, :])[..., :before].sum(axis=-1).mean(axis=-1)
    return given


def without_sinks(prompt: Prompt, weights: FloatArray) -> FloatArray:
    """`weights` (…, prompt tokens), changed in place."""
    weights[..., 0] = 0
    weights[..., [not piece for piece in prompt.pieces]] = 0
    return weights


def asking_rows(pieces: Sequence[bytes], rows: int) -> list[int]:
    """Which of the last `rows` rows ask: the last line of the last long stretch between special tokens, and what the
    template puts behind it. All rows where there is no such line, or it is longer."""
    length = len(pieces)
    specials = [at for at, piece in enumerate(pieces) if not piece]
    borders = [-1, *specials, length]
    stretches = [(a + 1, b) for a, b in itertools.pairwise(borders) if sum(map(len, pieces[a + 1 : b])) > _HEADER]
    first = length - rows
    if not stretches:
        return list(range(rows))
    start, end = stretches[-1]
    last_break = next((at for at in range(end - 2, start - 1, -1) if b"\n" in pieces[at]), start - 1)
    asking = [row for row in range(rows) if first + row > last_break and pieces[first + row]]
    return asking or list(range(rows))
