"""What a generation's passes show of its prompt, gathered for a scorer. Pure: no engine, no clock."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from cloud_service.refinement.contract import Evidence, Needs
from cloud_service.scheduler.jobs import Seen
from model_runtime.core import AttentionTap, Chunk, FloatArray, Logits, Result


@dataclass(slots=True)
class EvidenceCollector:
    """Asks the passes for what `needs` names, and for nothing in any other pass.

    Positions count from the prompt's first token. Rows before `given_from` (prompt, and the answer so far where one
    is continued) are the prompt's; those from there on are the answer's.
    """

    needs: Needs
    prompt: tuple[int, ...]
    given_from: int
    _rows: list[FloatArray] = field(default_factory=list)
    _logprobs: list[FloatArray] = field(default_factory=list)

    @property
    def looks_at_prompt(self) -> bool:
        """Whether the prompt has to go through the engine even if no token is wanted."""
        return self.needs.prompt_rows > 0 or self.needs.logprobs

    def equip(self, chunk: Chunk, start: int) -> Chunk:
        """`chunk`, whose first token has position `start`, with what is wanted from its pass."""
        end = start + len(chunk.tokens)
        rows = self._wanted_rows(start, end)
        tap = AttentionTap(self.needs.layers, rows) if rows else None
        logits = Logits.ALL if self._wants_logprobs(start) else chunk.logits
        return Chunk(chunk.sequence, chunk.tokens, logits, tap)

    def take(self, chunk: Chunk, start: int, result: Result) -> Seen | None:
        """Note what the pass of an equipped chunk showed; returns a stage's evidence once it is all there."""
        end = start + len(chunk.tokens)
        if result.attention is not None:
            self._rows.append(result.attention[..., : len(self.prompt)])
        if self._wants_logprobs(start):
            self._logprobs.append(_next_logprobs(result.logits, self.prompt[start + 1 : end + 1]))
        # Where the engine refused to show any attention, there is nothing to score.
        if end == self.given_from and self.looks_at_prompt and (self._rows or not self.needs.prompt_rows):
            return Seen("prompt", self._evidence(end))
        if end == self.given_from + self.needs.answer_rows and self._rows:
            return Seen("answer", self._evidence(end))
        return None

    def _wanted_rows(self, start: int, end: int) -> int:
        if start < self.given_from:
            return max(0, end - max(start, self.given_from - self.needs.prompt_rows))
        return end - start if end <= self.given_from + self.needs.answer_rows else 0

    def _wants_logprobs(self, start: int) -> bool:
        return self.needs.logprobs and start < len(self.prompt)

    def _evidence(self, end: int) -> Evidence:
        keys = min(end, len(self.prompt))
        # Rows of an earlier chunk see no later key: 0.
        rows = [np.pad(part, ((0, 0), (0, 0), (0, 0), (0, keys - part.shape[-1]))) for part in self._rows]
        attention = None if not rows else rows[0] if len(rows) == 1 else np.concatenate(rows, axis=2)
        logprobs = None
        if self._logprobs:
            # What a cached prefix hid counts as certain.
            known = np.concatenate(self._logprobs)[: len(self.prompt)]
            logprobs = np.concatenate([np.zeros(len(self.prompt) - len(known), np.float32), known])
        self._rows, self._logprobs = [], []
        return Evidence(attention, () if attention is None else self.needs.layers, logprobs)


def _next_logprobs(logits: FloatArray, following: tuple[int, ...]) -> FloatArray:
    """ln p of each of `following` by the row of logits before it; the rows after the last of them are not needed."""
    rows = logits[: len(following)]
    highest = rows.max(axis=-1)
    normalizer = highest + np.log(np.exp(rows - highest[:, None]).sum(axis=-1))
    chosen: FloatArray = rows[np.arange(len(following)), list(following)] - normalizer
    return chosen
