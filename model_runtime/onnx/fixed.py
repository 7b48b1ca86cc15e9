"""Runs fixed-shape graphs, as NPU compilers need them: padded chunk by chunk over static KV buffers.

A graph sees C tokens and S cache slots in every pass. A mask says which of each are real, so that what lies in the
other slots is never seen: a pass that is cancelled leaves nothing behind but unseen slots. Where several lengths C are
compiled, a chunk is run in those that cost the least (`model_runtime.onnx.tiling`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from model_runtime.core import Result
from model_runtime.onnx.runner import Item, Runner
from model_runtime.onnx.tiling import tiles

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from model_runtime.core import Cancellation
    from model_runtime.onnx.layout import DecoderLayout
    from model_runtime.onnx.stage import Stage


@dataclass(frozen=True, slots=True)
class Slots:
    """One sequence's KV cache: for each layer a key and a value buffer of (1, kv heads, S, head_dim).

    The buffers are this state's and its successors' alone, and only slots from `length` on are written.
    """

    length: int
    buffers: tuple[NDArray[Any], ...]


class FixedRunner(Runner[Slots]):
    """`stages`: the compiled lengths, all over caches of the same shape."""

    def __init__(self, stages: Sequence[Stage], layout: DecoderLayout, slots: int) -> None:
        super().__init__(stages[0].model, layout)
        self._stages = {stage.tokens: stage for stage in stages}
        #: The compiled lengths, in tokens.
        self.lengths = tuple(self._stages)
        self._slots = slots

    def empty(self) -> Slots:
        layout = self.layout
        size = (1, layout.kv_heads, self._slots, layout.head_dim)
        return Slots(0, tuple(np.zeros(size, layout.kv_dtype) for _ in range(2 * layout.layers)))

    def fork(self, state: Slots) -> Slots:
        return self.restore(self.keys_and_values(state))

    def truncate(self, state: Slots, length: int) -> Slots:
        return Slots(length, state.buffers)

    def keys_and_values(self, state: Slots) -> NDArray[Any]:
        layout = self.layout
        filled = np.stack([buffer[0, :, : state.length] for buffer in state.buffers])
        return filled.reshape(layout.layers, 2, layout.kv_heads, state.length, layout.head_dim)

    def restore(self, keys_and_values: NDArray[Any]) -> Slots:
        length = keys_and_values.shape[3]
        state = self.empty()
        for buffer, filled in zip(
            state.buffers, keys_and_values.reshape(len(state.buffers), *keys_and_values.shape[2:]), strict=True
        ):
            buffer[0, :, :length] = filled
        return Slots(length, state.buffers)

    def run(self, items: Sequence[Item[Slots]], cancellation: Cancellation | None) -> list[tuple[Slots, Result]]:
        return [self._run_one(item, cancellation) for item in items]

    def _run_one(self, item: Item[Slots], cancellation: Cancellation | None) -> tuple[Slots, Result]:
        total, keys = len(item.tokens), item.state.length + len(item.tokens)
        logits, attention, start = [], [], 0
        for length in tiles(total, self.lengths):
            step = item.tokens[start : start + length]
            past = Slots(item.state.length + start, item.state.buffers)
            rows = _among_last(item.logits, total, start, len(step))
            if item.tap is None:
                logits.append(self._stages[length].run(past, step, rows, cancellation))
            else:
                wanted = _among_last(item.tap_rows, total, start, len(step))
                some, seen = self._stages[length].run_tapped(past, step, rows, item.tap.layers, wanted, cancellation)
                logits.append(some)
                # What a row attends to ends with its own step; later keys are zero.
                attention.append(np.pad(seen, [(0, 0)] * 3 + [(0, keys - seen.shape[3])]))
            start += len(step)
        seen_by_all = np.concatenate(attention, axis=2) if item.tap is not None else None
        return Slots(keys, item.state.buffers), Result(np.concatenate(logits), seen_by_all)


def _among_last(wanted: int, total: int, start: int, count: int) -> tuple[int, int]:
    """Which rows of a step of `count` rows, the first being row `start`, are among the last `wanted` of `total`."""
    return min(max(total - wanted - start, 0), count), count
