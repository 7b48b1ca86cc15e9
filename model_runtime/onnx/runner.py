"""What the two ways of running a decoder graph have in common: their contract, and the session under them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic

import numpy as np

from model_runtime.errors import Cancelled, LoadCancelled, LoadError, UnsupportedError
from model_runtime.onnx.edits import LOGITS_START, TAP_END, TAP_START, edit
from model_runtime.onnx.graph import map_file
from model_runtime.onnx.layout import ATTENTION_MASK, INPUT_IDS, NUM_LOGITS, POSITION_IDS
from model_runtime.onnx.session import create_session
from model_runtime.passes import StateT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import onnxruntime as ort
    from numpy.typing import NDArray

    from model_runtime.core import AttentionTap, Cancellation, Result
    from model_runtime.onnx.files import ModelFiles
    from model_runtime.onnx.graph import Node
    from model_runtime.onnx.layout import DecoderLayout
    from model_runtime.onnx.session import Session
    from model_runtime.passes import TokenArray

# A graph that is edited is in memory some three times while it loads, so one with huge weights inside is left alone.
_LARGEST_EDIT = 512 << 20


@dataclass(frozen=True, slots=True)
class Item(Generic[StateT]):
    """One chunk of a pass, checked: what to append to a state, and what to return of it."""

    state: StateT
    tokens: TokenArray
    #: How many of the last positions return logits.
    logits: int
    tap: AttentionTap | None
    #: How many of the last positions return attention; 0 without a tap.
    tap_rows: int


class ModelSession:
    """The session over a model's graph with a row choice, and its replacement by one with taps the first time that
    attention is asked for (see `model_runtime.onnx.edits`).

    Without a tap asked for, a pass on a tapped graph costs the same, so weights are never in memory twice for long.
    """

    def __init__(
        self,
        files: ModelFiles,
        providers: Sequence[str],
        *,
        threads: int | None,
        allow_cpu_fallback: bool,
        cancellation: Cancellation | None,
        provider_options: Mapping[str, Mapping[str, str]] | None = None,
        compiled: Path | None = None,
    ) -> None:
        self.files = files
        self._provider_options = provider_options
        self._compiled = compiled
        self._providers = tuple(providers)
        self._threads = threads
        self._allow_cpu_fallback = allow_cpu_fallback
        self._head = _head_to_edit(files)
        self._tapped = False
        self.session = self._create(cancellation, attention=())

    @property
    def chooses_rows(self) -> bool:
        """Whether logits are computed only of the positions that `feeds` asks for."""
        return self._head is not None or NUM_LOGITS in self.files.graph.inputs

    def tap(self, cancellation: Cancellation | None) -> None:
        """Make sure that the session gives attention. Raises Cancelled, UnsupportedError."""
        if self._tapped:
            return
        try:
            self.session = self._create(cancellation, attention=self.files.graph.attention)
        except LoadCancelled as error:
            raise Cancelled("cancelled while the graph was loaded with its attention tap") from error
        except LoadError as error:
            raise UnsupportedError(f"the graph cannot be loaded with an attention tap: {error}") from error
        self._tapped = True

    def own_feeds(self, logits: int, tap_rows: tuple[int, int]) -> dict[str, NDArray[np.int64]]:
        """The inputs that editing has added."""
        feeds = {}
        if self._head is not None:
            feeds[LOGITS_START] = np.array([-max(logits, 1)])
        if self._tapped:
            feeds[TAP_START], feeds[TAP_END] = np.array([tap_rows[0]]), np.array([tap_rows[1]])
        return feeds

    def _create(self, cancellation: Cancellation | None, *, attention: Sequence[str]) -> Session:
        def edited() -> bytes:
            return edit(map_file(self.files.graph_path), head=self._head, attention=attention)

        return create_session(
            self.files,
            providers=self._providers,
            threads=self._threads,
            allow_cpu_fallback=self._allow_cpu_fallback,
            cancellation=cancellation,
            graph=edited() if self._head is not None or attention else None,
            provider_options=self._provider_options,
            compiled=self._compiled,
        )


def _head_to_edit(files: ModelFiles) -> Node | None:
    """Where a row choice goes. Not in graphs that have one, nor in fixed-shape ones, whose every size is a promise."""
    inputs = files.graph.inputs
    # A decoder whose ids a host graph takes is fixed too.
    fixed = None not in inputs.get(INPUT_IDS, ())
    large = files.graph_path.stat().st_size > _LARGEST_EDIT
    return None if fixed or large or NUM_LOGITS in inputs else files.graph.head


class Runner(ABC, Generic[StateT]):
    """Runs passes over states of one kind. It keeps none: what `run` returns replaces what it was given."""

    def __init__(self, model: ModelSession, layout: DecoderLayout) -> None:
        self.model = model
        self.layout = layout

    @abstractmethod
    def empty(self) -> StateT:
        """The state of a sequence without tokens."""

    @abstractmethod
    def fork(self, state: StateT) -> StateT:
        """A state that passes over the other do not change."""

    @abstractmethod
    def truncate(self, state: StateT, length: int) -> StateT:
        """The state of the first `length` tokens; `state` itself is not used again."""

    def part(self, state: StateT, gone: Sequence[StateT]) -> StateT:
        """What becomes of a state when a pass went over the states `gone` without it."""
        return state

    @abstractmethod
    def keys_and_values(self, state: StateT) -> NDArray[Any]:
        """(layers, 2, kv heads, length, head_dim) in the graph's KV type."""

    @abstractmethod
    def restore(self, keys_and_values: NDArray[Any]) -> StateT:
        """A state of what `keys_and_values` returned."""

    @abstractmethod
    def run(self, items: Sequence[Item[StateT]], cancellation: Cancellation | None) -> list[tuple[StateT, Result]]:
        """One pass. The given states stay valid when it raises: Cancelled, EngineFailedError, UnsupportedError."""

    def feeds(
        self,
        tokens: NDArray[np.int64],
        mask: NDArray[np.bool_],
        positions: NDArray[np.int64],
        logits: int,
        tap_rows: tuple[int, int] = (0, 0),
    ) -> dict[str, ort.OrtValue]:
        """Every input but KV: tokens (batch, n), mask (batch, keys), positions (batch, n), the tap's query rows."""
        wanted = {
            INPUT_IDS: tokens,
            ATTENTION_MASK: mask,
            POSITION_IDS: positions,
            # Some exports compute the last positions only; zero would mean all of them.
            NUM_LOGITS: np.array(max(logits, 1)),
        }
        inputs = {name: wanted[name].astype(dtype) for name, dtype in self.layout.input_dtypes.items()}
        inputs |= self.model.own_feeds(logits, tap_rows)
        return {name: self.model.session.to_device(array) for name, array in inputs.items()}


def last_rows(logits: ort.OrtValue, row: int, count: int) -> NDArray[np.float32]:
    """The logits of the last `count` positions of one sequence as an array of its own."""
    array: NDArray[Any] = logits.numpy()[row]
    return array[len(array) - count :].astype(np.float32)
