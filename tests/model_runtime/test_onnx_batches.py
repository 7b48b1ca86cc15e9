"""Sequences that share a pass share the memory of their KV caches, until they part."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from model_runtime.core import Chunk, Logits
from model_runtime.onnx import OnnxEngine

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def test_who_sits_out_a_pass_keeps_its_own_memory_only_and_goes_on_as_if_alone(
    tiny_model: Callable[[str], Path],
) -> None:
    with OnnxEngine.load(tiny_model("llama"), threads=1, max_sequences=4) as engine:
        prompts = [tuple(range(20, 30)), tuple(range(40, 45)), tuple(range(60, 72))]
        sequences = [engine.open() for _ in prompts]
        engine.forward([Chunk(sequence, ids) for sequence, ids in zip(sequences, prompts, strict=True)])
        engine.forward([Chunk(sequence, (7,)) for sequence in sequences])
        assert {_rows(engine, sequence) for sequence in sequences} == {3}
        engine.forward([Chunk(sequence, (8,)) for sequence in sequences[:2]])
        assert [_rows(engine, sequence) for sequence in sequences] == [2, 2, 1]
        resumed = engine.forward([Chunk(sequence, (9,), Logits.LAST) for sequence in sequences])

        alone = engine.open()
        fed = [(*prompts[0], 7, 8, 9), (*prompts[1], 7, 8, 9), (*prompts[2], 7, 9)]
        for ids, result in zip(fed, resumed, strict=True):
            engine.truncate(alone, 0)
            expected = engine.forward([Chunk(alone, ids, Logits.LAST)])[0]
            np.testing.assert_allclose(result.logits, expected.logits, atol=1e-4)


def _rows(engine: OnnxEngine, sequence: int) -> int:
    """How many sequences lie in the same block of memory."""
    rows: int = engine._table.get(sequence).block.rows
    return rows
