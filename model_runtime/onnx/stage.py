"""One compiled length of a fixed-shape decoder: its sessions, bound once to memory that every pass uses again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from model_runtime.onnx.edits import tap_output
from model_runtime.onnx.layout import ATTENTION_MASK, DTYPES, INPUT_IDS, LOGITS, POSITION_IDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from model_runtime.core import Cancellation, FloatArray
    from model_runtime.onnx.fixed import Slots
    from model_runtime.onnx.layout import DecoderLayout, FixedShape, TensorInfo
    from model_runtime.onnx.runner import ModelSession
    from model_runtime.onnx.session import Session
    from model_runtime.passes import TokenArray


class Stage:
    """`model` runs the decoder. `host`, where there is one, makes the decoder's inputs of ids, mask and positions."""

    def __init__(
        self, model: ModelSession, layout: DecoderLayout, shape: FixedShape, host: Session | None = None
    ) -> None:
        self.model = model
        self.tokens = shape.chunk
        self._layout, self._slots = layout, shape.slots
        sizes = {INPUT_IDS: shape.chunk, ATTENTION_MASK: shape.slots + shape.chunk, POSITION_IDS: shape.chunk}
        self._given = {
            name: np.zeros((1, sizes[name]), dtype) for name, dtype in layout.input_dtypes.items() if name in sizes
        }
        self._made = {value.name: _array(value) for value in host.outputs} if host is not None else {}
        self._host = host.bind(self._given | self._made) if host is not None else None
        wanted = (LOGITS, *layout.present_names)
        self._out = {value.name: _array(value) for value in model.session.outputs if value.name in wanted}
        self._bind()

    def _bind(self) -> None:
        self._session = self.model.session
        own = self.model.own_feeds(0, (0, 0))
        self._decoder = self._session.bind((self._made or self._given) | self._out | own)

    def run(
        self, past: Slots, tokens: TokenArray, logit_rows: tuple[int, int], cancellation: Cancellation | None
    ) -> FloatArray:
        """Up to C tokens: fills the slots after `past`; returns (rows, vocabulary) for the rows from-to.

        Raises Cancelled or EngineFailedError, and then no slot is filled."""
        if self._session is not self.model.session:  # it was replaced by one with taps
            self._bind()
        self._fill(past.length, tokens)
        for name, buffer in zip(self._layout.past_names, past.buffers, strict=True):
            self._decoder.set(name, buffer)
        if self._host is not None:
            self._host.run(cancellation)
        self._decoder.run(cancellation)
        self._keep(past, len(tokens), [self._out[name] for name in self._layout.present_names])
        return self._out[LOGITS][0, slice(*logit_rows)].astype(np.float32)

    def run_tapped(
        self,
        past: Slots,
        tokens: TokenArray,
        logit_rows: tuple[int, int],
        layers: Sequence[int],
        tap_rows: tuple[int, int],
        cancellation: Cancellation | None,
    ) -> tuple[FloatArray, FloatArray]:
        """As `run`, with (layers, heads, rows, keys) of attention. Raises UnsupportedError too."""
        self.model.tap(cancellation)
        session = self.model.session
        self._fill(past.length, tokens)
        if self._host is not None:
            self._host.run(cancellation)
        given = (self._made or self._given) | self.model.own_feeds(0, tap_rows)
        given |= dict(zip(self._layout.past_names, past.buffers, strict=True))
        feeds = {name: session.to_device(array) for name, array in given.items()}
        on_host = [LOGITS, *(tap_output(layer) for layer in layers), *self._layout.present_names]
        logits, *others = (value.numpy() for value in session.run(feeds, (), on_host, cancellation))
        self._keep(past, len(tokens), others[len(layers) :])
        real = np.flatnonzero(self._given[ATTENTION_MASK][0])
        attention: FloatArray = np.concatenate(others[: len(layers)])[..., real]
        return logits[0, slice(*logit_rows)].astype(np.float32), attention

    def _fill(self, length: int, tokens: TokenArray) -> None:
        count = len(tokens)
        self._given[INPUT_IDS][0, :count] = tokens
        self._given[INPUT_IDS][0, count:] = 0
        mask = self._given[ATTENTION_MASK]
        mask[...] = 0
        mask[0, :length] = mask[0, self._slots : self._slots + count] = 1
        if POSITION_IDS in self._given:
            self._given[POSITION_IDS][0] = np.arange(length, length + self.tokens)

    def _keep(self, past: Slots, count: int, fresh: Sequence[NDArray[Any]]) -> None:
        for buffer, new in zip(past.buffers, fresh, strict=True):
            buffer[:, :, past.length : past.length + count] = new[:, :, :count]


def _array(value: TensorInfo) -> NDArray[Any]:
    return np.zeros(value.shape, DTYPES[value.type])
