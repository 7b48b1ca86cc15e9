"""How much of a model is left after an export: the same tokens through both, and what each would have said."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from model_runtime.core import Chunk, Logits

if TYPE_CHECKING:
    from collections.abc import Sequence

    from model_runtime.core import Engine, FloatArray


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Over `positions` places of the prompts and of the reference's own answers; see docs/npu.md."""

    positions: int
    #: Of the tokens that come next, by either.
    perplexity: tuple[float, float]
    #: How often both find the same token the likeliest.
    same_token: float
    #: Kullback-Leibler divergence from the reference, nats, mean.
    divergence: float
    #: Greedy answers that are the same to their end, and how many there were.
    same_answers: int
    answers: int

    def __str__(self) -> str:
        before, after = self.perplexity
        return (
            f"perplexity {before:.3f} before, {after:.3f} after; the same likeliest token at {self.same_token:.1%} of "
            f"{self.positions} positions; divergence {self.divergence:.4f} nats; "
            f"{self.same_answers} of {self.answers} greedy answers the same"
        )


def compare(reference: Engine, other: Engine, prompts: Sequence[Sequence[int]], answer_tokens: int) -> Accuracy:
    """Prompts are cut to what both contexts hold. `answer_tokens`: where greedy answers end at the latest."""
    room = min(reference.info.context_length, other.info.context_length) - answer_tokens - 1
    same, divergence, losses, equal_answers = [], [], [], 0
    for prompt in prompts:
        # The question is at the end.
        tokens = list(prompt)[-room:]
        answers = [greedy(engine, tokens, answer_tokens) for engine in (reference, other)]
        equal_answers += answers[0] == answers[1]
        whole = tokens + answers[0]
        before, after = (_log_probabilities(engine, whole) for engine in (reference, other))
        same.append(before.argmax(1) == after.argmax(1))
        divergence.append((np.exp(before) * (before - after)).sum(1))
        said = np.array(whole[1:])
        losses.append([-each[np.arange(len(said)), said] for each in (before[:-1], after[:-1])])
    first, second = (float(np.exp(np.concatenate([pair[side] for pair in losses]).mean())) for side in (0, 1))
    places = np.concatenate(same)
    return Accuracy(
        positions=len(places),
        perplexity=(first, second),
        same_token=float(places.mean()),
        divergence=float(np.concatenate(divergence).mean()),
        same_answers=equal_answers,
        answers=len(prompts),
    )


def greedy(engine: Engine, prompt: Sequence[int], most: int) -> list[int]:
    """The likeliest tokens after `prompt`, up to and with the one that ends the answer, `most` of them at most."""
    sequence = engine.open()
    try:
        said: list[int] = []
        [result] = engine.forward([Chunk(sequence, prompt)])
        while True:
            said.append(int(result.logits[-1].argmax()))
            if len(said) >= most or said[-1] in engine.tokenizer.eos_ids:
                return said
            [result] = engine.forward([Chunk(sequence, said[-1:])])
    finally:
        engine.close(sequence)


def _log_probabilities(engine: Engine, tokens: Sequence[int]) -> FloatArray:
    sequence = engine.open()
    try:
        [result] = engine.forward([Chunk(sequence, tokens, Logits.ALL)])
    finally:
        engine.close(sequence)
    raised = result.logits - result.logits.max(1, keepdims=True)
    found: FloatArray = raised - np.log(np.exp(raised).sum(1, keepdims=True))
    return found
