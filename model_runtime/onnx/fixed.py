"""Runs fixed-shape graphs, as NPU compilers need them: padded chunk by chunk over static KV buffers.

The graph sees C tokens and S cache slots in every pass. A mask says which of each are real, so that what lies in the
other slots is never seen: a pass that is cancelled leaves nothing behind but unseen slots.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from model_runtime.core import FloatArray, Result
from model_runtime.onnx.edits import tap_output
from model_runtime.onnx.layout import LOGITS, DecoderLayout, FixedShape
from model_runtime.onnx.runner import Item, ModelSession, Runner

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from model_runtime.core import Cancellation
    from model_runtime.passes import TokenArray


@dataclass(frozen=True, slots=True)
class Slots:
    """One sequence's KV cache: for each layer a key and a value buffer of (1, kv heads, S, head_dim).

    The buffers are this state's and its successors' alone, and only slots from `length` on are written.
    """

    length: int
    buffers: tuple[NDArray[Any], ...]


class FixedRunner(Runner[Slots]):
    def __init__(self, model: ModelSession, layout: DecoderLayout, shape: FixedShape) -> None:
        super().__init__(model, layout)
        self._shape = shape

    def empty(self) -> Slots:
        layout = self.layout
        size = (1, layout.kv_heads, self._shape.slots, layout.head_dim)
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
        if item.tap is not None:
            self.model.tap(cancellation)
        total, keys = len(item.tokens), item.state.length + len(item.tokens)
        logits, attention = [], []
        for start in range(0, total, self._shape.chunk):
            step = item.tokens[start : start + self._shape.chunk]
            new_logits, new_attention = self._step(
                Slots(item.state.length + start, item.state.buffers),
                step,
                _among_last(item.logits, total, start, len(step)),
                item.tap.layers if item.tap is not None else (),
                _among_last(item.tap_rows, total, start, len(step)),
                cancellation,
            )
            logits.append(new_logits)
            # What a row attends to ends with its own step; later keys are zero.
            attention.append(np.pad(new_attention, [(0, 0)] * 3 + [(0, keys - new_attention.shape[3])]))
        seen = np.concatenate(attention, axis=2) if item.tap is not None else None
        return Slots(keys, item.state.buffers), Result(np.concatenate(logits), seen)

    def _step(
        self,
        past: Slots,
        tokens: TokenArray,
        logit_rows: tuple[int, int],
        tap_layers: Sequence[int],
        tap_rows: tuple[int, int],
        cancellation: Cancellation | None,
    ) -> tuple[FloatArray, FloatArray]:
        """Up to C tokens: fills the slots after `past`; returns (rows, vocabulary) and (layers, heads, rows, keys)."""
        layout, (chunk, slots) = self.layout, (self._shape.chunk, self._shape.slots)
        count = len(tokens)
        ids, mask = np.zeros((1, chunk), np.int64), np.zeros((1, slots + chunk), np.bool_)
        ids[0, :count] = tokens
        mask[0, : past.length] = mask[0, slots : slots + count] = True
        positions = np.arange(past.length, past.length + chunk)[None]
        feeds = self.feeds(ids, mask, positions, chunk, tap_rows)
        for name, buffer in zip(layout.past_names, past.buffers, strict=True):
            feeds[name] = self.model.session.to_device(buffer)
        on_host = [LOGITS, *(tap_output(layer) for layer in tap_layers), *layout.present_names]
        logits, *others = (value.numpy() for value in self.model.session.run(feeds, (), on_host, cancellation))
        for buffer, new in zip(past.buffers, others[len(tap_layers) :], strict=True):
            buffer[:, :, past.length : past.length + count] = new[:, :, :count]
        real = np.flatnonzero(mask[0])
        empty = np.zeros((0, 0, 0, len(real)), np.float32)
        attention = np.concatenate(others[: len(tap_layers)])[..., real] if tap_layers else empty
        return logits[0, slice(*logit_rows)].astype(np.float32), attention


def _among_last(wanted: int, total: int, start: int, count: int) -> tuple[int, int]:
    """Which rows of a step of `count` rows, the first being row `start`, are among the last `wanted` of `total`."""
    return min(max(total - wanted - start, 0), count), count
