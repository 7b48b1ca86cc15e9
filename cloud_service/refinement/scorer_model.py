"""A small model of the gateway's own as a scorer, for upstream engines that show no attention.

Its tokenizer may be another one: scores go from its tokens to the prompt's through the text's bytes (SpecPrefill across
model families, arXiv 2603.02631). It needs nothing of the serving engine, so it begins when a prompt arrives.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cloud_service.refinement.attention import AttentionScorer, Head
from cloud_service.refinement.contract import NO_NEEDS, Evidence, Needs, Prompt, Span
from model_runtime.core import AttentionTap, Chunk, Engine, FloatArray, Logits

#: Tokens of one pass.
_PASS = 512


class ScorerModel:
    """Owns `engine`, which must be able to tap attention; nobody else may use it. Not thread-safe."""

    name = "scorer-model"

    def __init__(self, engine: Engine, inner: AttentionScorer) -> None:
        self._engine = engine
        self._inner = inner
        self._looked: tuple[Prompt, Evidence] | None = None

    @property
    def needs(self) -> Needs:
        """Nothing of the serving engine."""
        return NO_NEEDS

    def score(self, prompt: Prompt, evidence: Evidence) -> FloatArray:
        """Raises ValueError for a prompt longer than the engine's context, and what the engine raises."""
        own = self._read(prompt)
        room = self._engine.info.context_length
        if len(own.tokens) > room:
            raise ValueError(f"the prompt has {len(own.tokens)} of the scorer model's tokens; its context is {room}")
        evidence = self._look(own.tokens)
        self._looked = own, evidence
        return transfer(self._inner.score(own, evidence), own.pieces, prompt.pieces)

    def regards(self, prompt: Prompt, evidence: Evidence, heads: Sequence[Head]) -> tuple[float, ...]:
        """Of this model's heads, on the prompt that was scored last."""
        if self._looked is None:
            raise ValueError("nothing was scored yet")
        return self._inner.regards(*self._looked, heads)

    def close(self) -> None:
        self._engine.shutdown()

    def _read(self, prompt: Prompt) -> Prompt:
        """The same text in this model's tokens. Special tokens are not part of the text."""
        text = b"".join(prompt.pieces).decode("utf-8", "replace")
        tokens = tuple(self._engine.tokenizer.encode(text))
        pieces = tuple(map(self._engine.tokenizer.token_bytes, tokens))
        return Prompt(tokens, pieces, _same_bytes(prompt, pieces))

    def _look(self, tokens: tuple[int, ...]) -> Evidence:
        needs = self._inner.needs
        sequence = self._engine.open()
        try:
            # The last pass holds all rows.
            first = max(0, len(tokens) - max(needs.prompt_rows, len(tokens) % _PASS or _PASS))
            for start in range(0, first, _PASS):
                self._engine.forward([Chunk(sequence, tokens[start : min(first, start + _PASS)], Logits.NONE)])
            tap = AttentionTap(needs.layers, needs.prompt_rows)
            result = self._engine.forward([Chunk(sequence, tokens[first:], Logits.NONE, tap)])[0]
            return Evidence(result.attention, needs.layers)
        finally:
            self._engine.close(sequence)


def transfer(scores: FloatArray, pieces: tuple[bytes, ...], onto: tuple[bytes, ...]) -> FloatArray:
    """Scores of tokens with these `pieces` for tokens with the pieces `onto`, of the same text: each byte has its
    token's score, and a token the largest of its bytes'. Where the texts differ in length, what is over has 0."""
    sizes = [len(piece) for piece in pieces]
    by_byte = np.repeat(scores.astype(np.float32), sizes)
    edges = np.concatenate(([0], np.cumsum([len(piece) for piece in onto], dtype=np.int64)))
    padded = np.zeros(edges[-1] + 1, np.float32)
    padded[: min(len(by_byte), edges[-1])] = by_byte[: edges[-1]]
    found = np.maximum.reduceat(padded, edges[:-1])
    found[np.diff(edges) == 0] = 0  # reduceat gives these the next byte's
    return found


def _same_bytes(prompt: Prompt, pieces: tuple[bytes, ...]) -> tuple[Span, ...]:
    """The prompt's protected spans in tokens with these `pieces`: all tokens that share a byte with them."""
    theirs = np.concatenate(([0], np.cumsum([len(piece) for piece in prompt.pieces], dtype=np.int64)))
    own = np.concatenate(([0], np.cumsum([len(piece) for piece in pieces], dtype=np.int64)))
    found: list[Span] = []
    for start, end in prompt.protected:
        first = int(np.searchsorted(own[1:], theirs[start], side="right"))
        last = int(np.searchsorted(own[:-1], theirs[end], side="left"))
        if found and first <= found[-1][1]:
            first = found.pop()[0]
        if first < last:
            found.append((first, last))
    return tuple(found)
