"""One llama.cpp context: the KV cache that its sequences share, and passes over them. Slots are llama.cpp's own
sequence ids, from 0 to `sequences` - 1."""

from __future__ import annotations

import ctypes
import enum
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from model_runtime.errors import EngineFailedError, LoadError
from model_runtime.llama.library import collected_problems

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from model_runtime.core import Cancellation, FloatArray
    from model_runtime.llama.model import Model

Precision: TypeAlias = Literal["f16", "f32"]

#: Tokens in one call of llama.cpp, and in one compute graph. Longer passes are split.
BATCH, MICRO_BATCH = 2048, 512

#: What keys and values are kept in: numbers of `enum ggml_type`.
PRECISIONS: dict[Precision, int] = {"f32": 0, "f16": 1}


@dataclass(frozen=True, slots=True)
class ContextSettings:
    cells: int
    sequences: int
    threads: int
    flash_attention: bool
    kv_precision: Precision
    on_gpu: bool


class Decoded(enum.Enum):
    """How a call ended."""

    DONE = "done"
    #: The KV cache has not enough free cells; nothing was changed.
    NO_ROOM = "no room"
    #: Some of the tokens may be in the KV cache.
    ABORTED = "aborted"


class Context:
    """`free` it exactly once, before its model; nothing here may be called afterwards."""

    def __init__(self, model: Model, settings: ContextSettings, eval_callback: Any = None) -> None:
        """`eval_callback` is a ctypes function, or None. Raises LoadError where memory does not suffice."""
        api = model.library.api
        self._api = api
        self._model = model  # Its weights must outlive this.
        parameters = api.llama_context_default_params()
        parameters.n_ctx = settings.cells
        parameters.n_batch = min(BATCH, settings.cells)
        parameters.n_ubatch = min(MICRO_BATCH, parameters.n_batch)
        parameters.n_seq_max = settings.sequences
        parameters.n_threads = parameters.n_threads_batch = settings.threads
        # AUTO takes flash attention wherever the backend has it for this model.
        wanted = api.LLAMA_FLASH_ATTN_TYPE_AUTO if settings.flash_attention else api.LLAMA_FLASH_ATTN_TYPE_DISABLED
        parameters.flash_attn_type = wanted
        parameters.kv_unified = True
        parameters.type_k = parameters.type_v = PRECISIONS[settings.kv_precision]
        parameters.swa_full = True
        parameters.no_perf = True
        # With no layer on it, the GPU is not to be used for anything.
        parameters.offload_kqv = parameters.op_offload = settings.on_gpu
        if eval_callback is not None:
            parameters.cb_eval = eval_callback
        self._eval_callback = eval_callback  # llama.cpp keeps its address.
        with collected_problems() as problems:
            self._handle = api.llama_init_from_model(model.handle, parameters)
        if not self._handle:
            raise LoadError(
                f"llama.cpp cannot make a context of {settings.cells} tokens for {model.path}: "
                f"{'; '.join(problems) or 'it gives no reason'}. Try a smaller context_length, kv_tokens or "
                "max_sequences"
            )
        self._memory = api.llama_get_memory(self._handle)
        self._vocabulary_size = int(api.llama_vocab_n_tokens(model.vocabulary))
        self._batch = _Batch(api, int(api.llama_n_batch(self._handle)))
        self._abort = _AbortFlag(api, self._handle)

    def free(self) -> None:
        self._api.llama_free(self._handle)

    @property
    def cells(self) -> int:
        """Tokens that the KV cache holds, of all sequences together."""
        return int(self._api.llama_n_ctx(self._handle))

    @property
    def batch_limit(self) -> int:
        """The most tokens that `decode` takes."""
        return self._batch.capacity

    def decode(
        self,
        tokens: NDArray[np.int64],
        positions: NDArray[np.int64],
        slots: NDArray[np.int64],
        outputs: list[int],
        cancellation: Cancellation | None,
    ) -> Decoded:
        """Append tokens to their sequences; `outputs` are the indices of those that return logits. Cancellation
        aborts from inside. Raises EngineFailedError, with some of the tokens perhaps in the KV cache."""
        batch = self._batch.fill(tokens, positions, slots, outputs)
        with collected_problems() as problems, self._abort.on(cancellation):
            status = self._api.llama_decode(self._handle, batch)
            self._api.llama_synchronize(self._handle)
        match status:
            case 0:
                return Decoded.DONE
            case 1:
                return Decoded.NO_ROOM
            case 2:
                return Decoded.ABORTED
            case _:
                raise EngineFailedError(f"llama_decode returned {status}: {'; '.join(problems) or 'no reason given'}")

    def read_logits(self, index: int, into: FloatArray) -> None:
        """Copy the logits of the last `decode`'s token `index`, one that was among its outputs."""
        source = self._api.llama_get_logits_ith(self._handle, index)
        ctypes.memmove(into.ctypes.data, source, self._vocabulary_size * into.itemsize)

    def forget(self, slot: int, length: int) -> bool:
        """Keep the first `length` tokens; returns whether the model's memory can do that. Nothing has changed where
        it cannot. Forgetting everything always works."""
        return bool(self._api.llama_memory_seq_rm(self._memory, slot, length, -1))

    def copy(self, source: int, target: int) -> None:
        """Share the KV of one sequence with an empty one."""
        self._api.llama_memory_seq_cp(self._memory, source, target, -1, -1)

    def first_position(self, slot: int) -> int:
        """From here on every position is in memory; more than 0 where a window has moved on."""
        return int(self._api.llama_memory_seq_pos_min(self._memory, slot))

    def export(self, slot: int) -> bytearray:
        data = bytearray(self._api.llama_state_seq_get_size(self._handle, slot))
        target = (ctypes.c_uint8 * len(data)).from_buffer(data)
        written = self._api.llama_state_seq_get_data(self._handle, target, len(data), slot)
        return data[:written]

    def restore(self, slot: int, data: memoryview) -> str:
        """Put exported bytes into an empty sequence. Returns why that failed, with the sequence still empty; else
        an empty text."""
        source = np.frombuffer(data, dtype=np.uint8)
        pointer = source.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
        with collected_problems() as problems:
            if self._api.llama_state_seq_set_data(self._handle, pointer, len(source), slot):
                return ""
        return "; ".join(problems) or "no reason given"


class _Batch:
    """The arrays behind a `llama_batch`, made once."""

    def __init__(self, api: Any, capacity: int) -> None:
        self.capacity = capacity
        self._tokens = np.zeros(capacity, dtype=np.int32)
        self._positions = np.zeros(capacity, dtype=np.int32)
        self._slots = np.zeros(capacity, dtype=np.int32)
        self._outputs = np.zeros(capacity, dtype=np.int8)
        # Every token belongs to one sequence: pointer i points at slot i.
        self._slot_counts = np.ones(capacity, dtype=np.int32)
        steps = np.arange(capacity, dtype=np.uintp) * self._slots.itemsize
        self._slot_pointers = steps + np.uintp(self._slots.ctypes.data)
        self._struct = api.llama_batch(
            n_tokens=0,
            token=_pointer(self._tokens, ctypes.c_int32),
            embd=None,
            pos=_pointer(self._positions, ctypes.c_int32),
            n_seq_id=_pointer(self._slot_counts, ctypes.c_int32),
            seq_id=_pointer(self._slot_pointers, ctypes.POINTER(ctypes.c_int32)),
            logits=_pointer(self._outputs, ctypes.c_int8),
        )

    def fill(
        self,
        tokens: NDArray[np.int64],
        positions: NDArray[np.int64],
        slots: NDArray[np.int64],
        outputs: list[int],
    ) -> Any:
        count = len(tokens)
        self._tokens[:count] = tokens
        self._positions[:count] = positions
        self._slots[:count] = slots
        self._outputs[:count] = 0
        self._outputs[outputs] = 1
        self._struct.n_tokens = count
        return self._struct


def _pointer(array: NDArray[Any], kind: Any) -> Any:
    return array.ctypes.data_as(ctypes.POINTER(kind))


class _AbortFlag:
    """Ends a running pass on cancellation.

    llama.cpp asks a C function before every node of the graph whether to abort. A Python function would have to win
    the interpreter's lock each time, and with another thread busy that takes milliseconds. C's own `strlen` does it:
    of an empty string it is 0, go on; `cancel` writes a character, and it is 1, abort.
    """

    def __init__(self, api: Any, handle: int) -> None:
        self._api = api
        self._handle = handle
        self._strlen = ctypes.cast(_c_library().strlen, api.ggml_abort_callback)
        self._none = api.ggml_abort_callback()

    @contextmanager
    def on(self, cancellation: Cancellation | None) -> Iterator[None]:
        if cancellation is None:
            yield
            return
        # One flag for each pass: a cancellation that comes late writes into a flag that nobody reads any more.
        flag = ctypes.create_string_buffer(2)

        def abort() -> None:
            flag[0] = b"\x01"

        self._api.llama_set_abort_callback(self._handle, self._strlen, flag)
        forget = cancellation.on_cancel(abort)
        try:
            yield
        finally:
            forget()
            self._api.llama_set_abort_callback(self._handle, self._none, None)


def _c_library() -> Any:
    return ctypes.CDLL("msvcrt") if sys.platform == "win32" else ctypes.CDLL(None)
