"""Runs dynamic-shape graphs: what a pass returns as `present` goes into the next one as `past`, without a copy.

KV lies in blocks. A block is what one run returned, for one sequence or for several that were decoded together; it is
never written to, so forks share it. A sequence is one row of a block. Sequences of unlike lengths decode together in
a padded block whose mask says which columns are theirs; a run over the same sequences again takes the block as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from model_runtime.core import Result
from model_runtime.onnx.edits import tap_output
from model_runtime.onnx.layout import LOGITS, POSITION_IDS, DecoderLayout
from model_runtime.onnx.runner import Item, ModelSession, Runner, last_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnxruntime as ort
    from numpy.typing import NDArray

    from model_runtime.core import Cancellation

# Padding a short sequence to a long one's length costs attention over nothing; beyond this it does not pay.
_LENGTH_RATIO, _LENGTH_SLACK = 2, 256


@dataclass(frozen=True, slots=True)
class Block:
    """KV of some sequences: for each layer a key and a value tensor of (rows, kv heads, columns, head_dim)."""

    tensors: tuple[ort.OrtValue, ...]
    rows: int
    columns: int
    #: (rows, columns): which columns hold tokens of the row's sequence; None where all do.
    valid: NDArray[np.bool_] | None = None


@dataclass(frozen=True, slots=True)
class Past:
    """One sequence's KV cache. Immutable."""

    length: int
    block: Block
    row: int


class DynamicRunner(Runner[Past]):
    """See the module. Passes over one chunk of several tokens run one by one: there is nothing to gain by padding."""

    def __init__(self, model: ModelSession, layout: DecoderLayout) -> None:
        super().__init__(model, layout)
        graph = model.files.graph
        masked = len(graph.attention) == layout.layers and POSITION_IDS in layout.input_dtypes
        #: Sequences can share a run and still get the numbers that they would get alone.
        self.batches = layout.batch and masked and not graph.quantizes_activations

    def empty(self) -> Past:
        layout = self.layout
        shape = (layout.layers, 2, layout.kv_heads, 0, layout.head_dim)
        return self.restore(np.zeros(shape, layout.kv_dtype))

    def fork(self, state: Past) -> Past:
        return state

    def truncate(self, state: Past, length: int) -> Past:
        return self.restore(self.keys_and_values(state)[:, :, :, :length]) if length < state.length else state

    def part(self, state: Past, gone: Sequence[Past]) -> Past:
        """Kept where it was, one sequence that rests would hold the memory of all that it once ran with."""
        left = state.block.rows > 1 and any(other.block is state.block for other in gone)
        return self._alone(state) if left else state

    def keys_and_values(self, state: Past) -> NDArray[Any]:
        layout = self.layout
        rows = np.stack([_row(tensor.numpy(), state) for tensor in state.block.tensors])
        return rows.reshape(layout.layers, 2, layout.kv_heads, state.length, layout.head_dim)

    def restore(self, keys_and_values: NDArray[Any]) -> Past:
        length = keys_and_values.shape[3]
        flat = keys_and_values.reshape(2 * self.layout.layers, 1, *keys_and_values.shape[2:])
        # A copy for each tensor: one view kept alive must not keep all of them.
        tensors = tuple(self.model.session.to_device(tensor.copy()) for tensor in flat)
        return Past(length, Block(tensors, 1, length), 0)

    def run(self, items: Sequence[Item[Past]], cancellation: Cancellation | None) -> list[tuple[Past, Result]]:
        done: dict[int, tuple[Past, Result]] = {}
        together = [i for i, item in enumerate(items) if len(item.tokens) == 1 and item.tap is None and self.batches]
        groups = _group(together, [item.state.length for item in items])
        for group in groups:
            if len(group) > 1:
                done |= zip(group, self._decode([items[i] for i in group], cancellation), strict=True)
        for i, item in enumerate(items):
            if i not in done:
                done[i] = self._run_one(item, cancellation)
        return [done[i] for i in range(len(items))]

    def _run_one(self, item: Item[Past], cancellation: Cancellation | None) -> tuple[Past, Result]:
        if item.tap is not None:
            self.model.tap(cancellation)
        state = self._alone(item.state)
        count, length = len(item.tokens), state.length + len(item.tokens)
        feeds = self.feeds(
            item.tokens[None],
            np.ones((1, length), np.bool_),
            np.arange(state.length, length)[None],
            item.logits,
            (count - item.tap_rows, count),
        )
        taps = [tap_output(layer) for layer in item.tap.layers] if item.tap is not None else []
        block, (logits, *attention) = self._run_block(feeds, state.block, [LOGITS, *taps], cancellation)
        seen = np.concatenate([tensor.numpy() for tensor in attention]) if attention else None
        return Past(length, block, 0), Result(last_rows(logits, 0, item.logits), seen)

    def _decode(self, items: Sequence[Item[Past]], cancellation: Cancellation | None) -> list[tuple[Past, Result]]:
        """One token each of several sequences."""
        block, rows = self._together([item.state for item in items])
        lengths = np.zeros(block.rows, np.int64)
        tokens = np.zeros((block.rows, 1), np.int64)
        for row, item in zip(rows, items, strict=True):
            lengths[row], tokens[row] = item.state.length, item.tokens
        old = np.ones((block.rows, block.columns), np.bool_) if block.valid is None else block.valid
        mask = np.concatenate([old, np.ones((block.rows, 1), np.bool_)], axis=1)
        feeds = self.feeds(tokens, mask, lengths[:, None], 1)
        grown, (logits,) = self._run_block(feeds, block, [LOGITS], cancellation)
        grown = Block(grown.tensors, grown.rows, grown.columns, None if block.valid is None else mask)
        return [
            (Past(item.state.length + 1, grown, row), Result(last_rows(logits, row, item.logits)))
            for row, item in zip(rows, items, strict=True)
        ]

    def _run_block(
        self,
        feeds: dict[str, ort.OrtValue],
        past: Block,
        on_host: Sequence[str],
        cancellation: Cancellation | None,
    ) -> tuple[Block, list[ort.OrtValue]]:
        layout = self.layout
        feeds.update(zip(layout.past_names, past.tensors, strict=True))
        values = self.model.session.run(feeds, layout.present_names, on_host, cancellation)
        kept = len(layout.present_names)
        tensors = tuple(values[:kept])
        return Block(tensors, past.rows, tensors[0].shape()[2]), values[kept:]

    def _alone(self, state: Past) -> Past:
        """The same sequence in a block of its own, in host memory without a copy where its row has no holes."""
        if state.block.rows == 1:
            return state
        tensors = tuple(self.model.session.to_device(_row(each.numpy(), state)[None]) for each in state.block.tensors)
        return Past(state.length, Block(tensors, 1, state.length), 0)

    def _together(self, states: Sequence[Past]) -> tuple[Block, list[int]]:
        """A block that holds just these sequences, and the row of each."""
        block, rows = states[0].block, [state.row for state in states]
        if all(state.block is block for state in states) and sorted(rows) == list(range(block.rows)):
            return block, rows
        layout, columns = self.layout, max(state.length for state in states)
        tensors = []
        for index in range(2 * layout.layers):
            joined = np.zeros((len(states), layout.kv_heads, columns, layout.head_dim), layout.kv_dtype)
            for row, state in enumerate(states):
                joined[row, :, : state.length] = _row(state.block.tensors[index].numpy(), state)
            tensors.append(self.model.session.to_device(joined))
        lengths = np.array([state.length for state in states])
        valid = None if (lengths == columns).all() else np.arange(columns)[None] < lengths[:, None]
        return Block(tuple(tensors), len(states), columns, valid), list(range(len(states)))


def _row(tensor: NDArray[Any], state: Past) -> NDArray[Any]:
    """(kv heads, length, head_dim) of one sequence."""
    row: NDArray[Any] = tensor[state.row]
    return row if state.block.valid is None else row[:, state.block.valid[state.row]]


def _group(indices: Sequence[int], lengths: Sequence[int]) -> list[list[int]]:
    """Which of the chunks `indices` share a run: those of similar lengths."""
    groups: list[list[int]] = []
    for i in sorted(indices, key=lambda i: lengths[i]):
        if groups and lengths[i] <= _LENGTH_RATIO * lengths[groups[-1][0]] + _LENGTH_SLACK:
            groups[-1].append(i)
        else:
            groups.append([i])
    return groups
