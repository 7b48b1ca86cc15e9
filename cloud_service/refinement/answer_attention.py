"""A second look: what the answer's first tokens look at while they are decoded.

They know what is being answered, which the question's own rows may not (SpecPrefill's look-ahead rows, arXiv
2502.02789; the oracle of CLAA, 2602.16054). They follow the line they are copying, though, and a wrong answer follows a
wrong one, so they add to what the first stage found and never take its place. The heads are not those that serve the
question: used here, those do harm.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cloud_service.refinement.attention import Head, chosen_heads, importance_of
from cloud_service.refinement.contract import Evidence, Needs, Prompt
from model_runtime.core import FloatArray

#: How many of the answer's first tokens are looked at.
ROWS = 8


#: What these rows count beside the stage before (docs/log.md).
WEIGHT = 0.5


class AnswerAttention:
    """What the stage before scored, and less than that what these rows attend to, each with its largest at 1."""

    name = "answer-attention"

    def __init__(self, layers: Sequence[int], *, heads: Sequence[Head] | None = None, rows: int = ROWS) -> None:
        """As `attention.AttentionScorer`; `rows` are the answer's first tokens."""
        self.needs = Needs(tuple(layers), answer_rows=rows)
        self._heads = None if heads is None else tuple(heads)

    def score(self, prompt: Prompt, evidence: Evidence) -> FloatArray:
        answer = importance_of(prompt, chosen_heads(evidence, self._heads))
        return answer if evidence.earlier is None else sharpened(evidence.earlier, answer)


def sharpened(earlier: FloatArray, answer: FloatArray) -> FloatArray:
    """The scores of both stages together."""
    return _at_most_one(earlier) + np.float32(WEIGHT) * _at_most_one(answer)


def _at_most_one(scores: FloatArray) -> FloatArray:
    largest = scores.max()
    return scores / largest if largest > 0 else scores
