"""Attention weights out of a running llama.cpp graph.

llama.cpp shows every node of its compute graph to an eval callback. With flash attention there is no tensor of
weights, but the node's inputs are there: the queries, and the keys *as they lie in the KV cache*. So the tapped rows
are computed again from those two, over all keys so far, whichever pass they were computed in. Without flash attention
the weights themselves (`kq_soft_max-<layer>`) are read.

A cell of the shared cache does not say whose it is or which position it holds. That is known from what is written: in
each graph the node that stores keys names the cell of every token. It is noted for all passes, tapped or not.

The callback is Python and is called for each node, also of passes without a tap (about a microsecond a node, some 30
nodes a layer): only engines loaded with `tap_layers` have it.
"""

from __future__ import annotations

import ctypes
from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from model_runtime.errors import UnsupportedError
from model_runtime.llama.library import Library, Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from model_runtime.core import FloatArray
    from model_runtime.llama.context import Context

# `enum ggml_type` of the caches that this module reads.
_KEY_TYPES: dict[int, Any] = {0: np.float32, 1: np.float16}
_OP = Tensor.op.offset


@dataclass(frozen=True, slots=True)
class TapRequest:
    """Attention of the rows `first` … `first + rows - 1` of a pass (counted over all its chunks)."""

    layers: tuple[int, ...]
    first: int
    rows: int
    #: Position of row `first` in its sequence.
    position: int
    #: Where the chunk's own tokens begin in the pass.
    chunk_start: int
    #: The cells of the sequence's tokens before this pass, by position.
    history: array[int]
    #: (layers, heads, rows, keys), zeros; the rows are written here.
    out: FloatArray


class AttentionTapper:
    """Collects the attention of one context. `callback` goes into the context's parameters and must live as long."""

    def __init__(self, library: Library, layers: tuple[int, ...], heads: int) -> None:
        self._library = library
        self._layers = layers
        self._heads = heads
        self._by_key_cache = {f"cache_k_l{layer}".encode(): layer for layer in layers}
        self._by_weights = {f"kq_soft_max-{layer}".encode(): layer for layer in layers}
        # All layers of a cache without windows use the same cells; the first that is tapped must not be too late.
        self._cells_from = f"cache_k_l{min(layers)}".encode()
        operations = library.operations
        self._store = operations["SET_ROWS"]
        self._flash = operations["FLASH_ATTN_EXT"]
        self._softmax = operations["SOFT_MAX"]
        self._operations = frozenset((self._store, self._flash, self._softmax))
        self._requests: Sequence[TapRequest] = ()
        self._cells = array("q")
        self._graph_start = 0
        self._error: BaseException | None = None
        self.callback = library.api.ggml_backend_sched_eval_callback(self._on_node)

    def probe(self, context: Context) -> None:
        """Run one token through an empty context and look at what its graph shows. Raises UnsupportedError where a
        layer cannot be tapped, EngineFailedError."""
        out = np.zeros((len(self._layers), self._heads, 1, 1), dtype=np.float32)
        self.begin([TapRequest(self._layers, 0, 1, 0, 0, array("q"), out)])
        one = np.zeros(1, dtype=np.int64)
        context.decode(one, one, one, [], None)
        self.finish()
        context.forget(0, 0)
        # A single key gets all the attention.
        blind = [layer for layer, weights in zip(self._layers, out, strict=True) if not np.all(weights == 1)]
        if blind:
            raise UnsupportedError(
                f"layers {blind} show no attention that can be tapped: leave them out of tap_layers (or, with "
                "kv_precision='f32', load with flash_attention=False)"
            )

    def begin(self, requests: Sequence[TapRequest]) -> None:
        """A pass starts; its graphs take the pass's tokens in order."""
        self._requests = requests
        self._cells = array("q")
        self._graph_start = 0
        self._error = None

    def finish(self) -> array[int]:
        """The pass is over: the cells of its tokens, in order. Raises what went wrong in the callback."""
        self._requests = ()
        error, self._error = self._error, None
        if error is not None:
            raise error
        return self._cells

    def _on_node(self, address: int, ask: bool, _user_data: Any) -> bool:
        # Nothing may unwind through C: errors wait for `finish`. The answer to `ask` is whether the node must be
        # computed by itself and shown again; afterwards it is whether to go on.
        try:
            if ctypes.c_int.from_address(address + _OP).value not in self._operations or self._error is not None:
                return not ask
            tensor = Tensor.from_address(address)
            if tensor.op == self._store:
                if ask and tensor.view_src.contents.name == self._cells_from:
                    self._note_cells(tensor.src[1].contents)
                return not ask
            layer = self._layer_of(tensor)
            wanted = [request for request in self._requests if layer in request.layers and self._in_graph(request)]
            if layer is None or not wanted:
                return not ask
            if not ask:
                self._check(tensor, layer)
                for request in wanted:
                    self._read(tensor, layer, request)
        except BaseException as error:
            self._error = error
            return not ask
        return True

    def _layer_of(self, tensor: Tensor) -> int | None:
        if tensor.op == self._softmax:
            return self._by_weights.get(tensor.name)
        keys = tensor.src[1].contents
        return self._by_key_cache.get(keys.view_src.contents.name) if keys.view_src else None

    def _in_graph(self, request: TapRequest) -> bool:
        """Whether the graph that is running computes rows of the request."""
        return request.first < len(self._cells) and request.first + request.rows > self._graph_start

    def _note_cells(self, indices: Tensor) -> None:
        # An input of the graph: its values are there before any node is computed.
        count = indices.ne[0]
        self._graph_start = len(self._cells)
        self._cells.frombytes(self._library.read(indices, 0, count * 8).tobytes())

    def _read(self, tensor: Tensor, layer: int, request: TapRequest) -> None:
        first = max(request.first, self._graph_start)
        last = min(request.first + request.rows, len(self._cells))
        own = np.frombuffer(self._cells, dtype=np.int64)[request.chunk_start : last]
        cells = np.concatenate((np.frombuffer(request.history, dtype=np.int64), own))
        rows = slice(first - self._graph_start, last - self._graph_start)
        if tensor.op == self._softmax:
            weights = self._from_weights(tensor, rows, cells)
        else:
            weights = self._from_keys(tensor, rows, cells, seen=request.position + first - request.first + 1)
        into = slice(first - request.first, last - request.first)
        for index, asked in enumerate(request.layers):
            if asked == layer:
                request.out[index, :, into, : len(cells)] = weights

    def _check(self, tensor: Tensor, layer: int) -> None:
        """Raises UnsupportedError rather than give numbers that are not what the model attended to."""
        flash = tensor.op == self._flash
        alibi, softcap = np.array(tensor.op_params[1:3], dtype=np.int32).view(np.float32)
        heads = tensor.src[0].contents.ne[2]
        problem = ""
        if not self._library.knows_layout(tensor):
            problem = f"the tensors of this llama.cpp ({self._library.version}) are laid out differently"
        elif tensor.src[4 if flash else 2]:
            problem = "it attends to sinks beside the keys, so that no row would sum to 1"
        elif heads != self._heads:
            problem = f"it has {heads} heads, and the model's first layer {self._heads}"
        elif flash and (alibi or softcap):
            problem = "its scores are biased or capped; load with flash_attention=False to read them from llama.cpp"
        elif flash and tensor.src[1].contents.type not in _KEY_TYPES:
            problem = f"its keys are of ggml type {tensor.src[1].contents.type}"
        if problem:
            raise UnsupportedError(f"layer {layer} cannot be tapped: {problem}")

    def _from_keys(self, tensor: Tensor, rows: slice, cells: NDArray[np.int64], seen: int) -> FloatArray:
        """`seen`: how many keys the first of the rows sees."""
        queries, keys = tensor.src[0].contents, tensor.src[1].contents
        scale = float(np.array(tensor.op_params[:1], dtype=np.int32).view(np.float32)[0])
        # Both are (head_dim, rows, heads) in ggml's order, last axis slowest: (heads, rows, head_dim) here.
        q = self._strided(queries, rows.start, rows.stop, np.float32)
        k = self._strided(keys, 0, int(cells.max()) + 1, _KEY_TYPES[keys.type])[:, cells].astype(np.float32)
        shared = len(q) // len(k)  # Query heads that share a key head.
        grouped = q.reshape(len(k), shared * q.shape[1], q.shape[2])
        scores = (grouped @ k.transpose(0, 2, 1) * np.float32(scale)).reshape(*q.shape[:2], len(cells))
        hidden = np.arange(len(cells)) >= seen + np.arange(q.shape[1])[:, None]
        scores[:, hidden] = -np.inf
        scores -= scores.max(axis=-1, keepdims=True)
        np.exp(scores, out=scores)
        scores /= scores.sum(axis=-1, keepdims=True)
        return scores

    def _from_weights(self, tensor: Tensor, rows: slice, cells: NDArray[np.int64]) -> FloatArray:
        return self._strided(tensor, rows.start, rows.stop, np.float32)[:, :, cells]

    def _strided(self, tensor: Tensor, start: int, stop: int, kind: Any) -> NDArray[Any]:
        """Elements `start` … `stop` of the second axis: (axis 2, axis 1, axis 0), a view of a copy."""
        width, _, depth, _ = tensor.ne
        size = np.dtype(kind).itemsize
        by_row, by_plane = tensor.nb[1], tensor.nb[2]
        span = (stop - start - 1) * by_row + (depth - 1) * by_plane + width * size
        data = self._library.read(tensor, start * by_row, span)
        return np.ndarray((depth, stop - start, width), kind, data, strides=(by_plane, by_row, size))
