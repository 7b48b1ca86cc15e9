"""One pass, laid out as llama.cpp takes it: the tokens of all chunks one after the other, and where results go."""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np

from model_runtime.core import Result
from model_runtime.llama.taps import TapRequest
from model_runtime.passes import logit_rows, tap_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from model_runtime.core import Chunk, EngineInfo, FloatArray
    from model_runtime.passes import TokenArray


@dataclass(slots=True)
class LlamaSequence:
    """What the engine keeps for one sequence."""

    #: llama.cpp's own sequence id.
    slot: int
    length: int = 0
    #: The KV cache's cell of each token, by position; None where that is not known (no taps, or imported).
    cells: array[int] | None = None


@dataclass(frozen=True, slots=True)
class Pass:
    """Tokens are counted over all chunks, from 0."""

    tokens: NDArray[np.int64]
    positions: NDArray[np.int64]
    slots: NDArray[np.int64]
    #: Where each chunk begins, and one past the last.
    bounds: tuple[int, ...]
    #: For each token that returns logits, the row to write them to.
    logits: dict[int, FloatArray]
    taps: tuple[TapRequest, ...]
    #: The arrays in them are filled while the pass runs.
    results: list[Result]


def lay_out(
    chunks: Sequence[Chunk], tokens: Sequence[TokenArray], states: Sequence[LlamaSequence], info: EngineInfo
) -> Pass:
    """`tokens` are those of the chunks as `SequenceTable.check_chunks` returned them."""
    bounds = (0, *accumulate(map(len, tokens)))
    logits: dict[int, FloatArray] = {}
    taps: list[TapRequest] = []
    results: list[Result] = []
    for chunk, state, start, end in zip(chunks, states, bounds, bounds[1:], strict=False):
        rows = np.empty((logit_rows(chunk), info.vocabulary_size), dtype=np.float32)
        logits |= {end - len(rows) + row: rows[row] for row in range(len(rows))}
        attention = None
        if chunk.tap is not None:
            count, keys = tap_rows(chunk), state.length + end - start
            attention = np.zeros((len(chunk.tap.layers), info.heads, count, keys), dtype=np.float32)
            history = array("q") if state.cells is None else state.cells
            taps.append(TapRequest(chunk.tap.layers, end - count, count, keys - count, start, history, attention))
        results.append(Result(rows, attention))
    return Pass(
        tokens=np.concatenate(tokens),
        positions=np.concatenate(
            [np.arange(len(ids)) + state.length for ids, state in zip(tokens, states, strict=True)]
        ),
        slots=np.repeat([state.slot for state in states], [len(ids) for ids in tokens]),
        bounds=bounds,
        logits=logits,
        taps=tuple(taps),
        results=results,
    )
