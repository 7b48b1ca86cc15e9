"""A scripted engine whose sequences share one KV cache, cell by cell, as llama.cpp's do."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

from model_runtime.core import Cancellation, Chunk, Result
from model_runtime.errors import ContextOverflowError
from model_runtime.testing import ScriptedEngine


class CellEngine(ScriptedEngine):
    """Raises ContextOverflowError where a pass finds too few free cells. Forks share theirs."""

    def __init__(self, cells: int, **options: Any) -> None:
        super().__init__(answer_length=100_000, context_length=cells, **options)
        self.info = dataclasses.replace(self.info, kv_tokens=cells)
        self.cells: dict[int, list[int]] = {}
        self._new = itertools.count()

    @property
    def used(self) -> int:
        return len({cell for cells in self.cells.values() for cell in cells})

    def open(self) -> int:
        sequence = super().open()
        self.cells[sequence] = []
        return sequence

    def fork(self, sequence: int) -> int:
        forked = super().fork(sequence)
        self.cells[forked] = list(self.cells[sequence])
        return forked

    def truncate(self, sequence: int, length: int) -> None:
        super().truncate(sequence, length)
        del self.cells[sequence][length:]

    def close(self, sequence: int) -> None:
        super().close(sequence)
        del self.cells[sequence]

    def forward(self, chunks: Sequence[Chunk], cancellation: Cancellation | None = None) -> list[Result]:
        if self.used + sum(len(chunk.tokens) for chunk in chunks) > (self.info.kv_tokens or 0):
            raise ContextOverflowError("no free cells")
        results = super().forward(chunks, cancellation)
        for chunk in chunks:
            self.cells[chunk.sequence] += itertools.islice(self._new, len(chunk.tokens))
        return results
