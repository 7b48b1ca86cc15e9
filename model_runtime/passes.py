"""What every engine checks and counts in the same way: which sequences are open, and what may go into a pass.

`SequenceTable` owns the ids. An id is never used twice, so a sequence closed twice is always found out. Each engine
keeps what it needs for a sequence (KV arrays, a slot of the runtime) in a state of its own type. How exported KV is
framed is in `model_runtime.kv_bytes`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, Protocol, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from model_runtime.core import Logits
from model_runtime.errors import (
    BadInputError,
    BadTokenError,
    Cancelled,
    ContextOverflowError,
    EngineFailedError,
    UnknownSequenceError,
    UnsupportedError,
)

if TYPE_CHECKING:
    from collections.abc import Container, Iterator, Sequence

    from model_runtime.core import AttentionTap, Cancellation, Chunk, EngineInfo

TokenArray: TypeAlias = NDArray[np.int64]


class SequenceState(Protocol):
    """What an engine keeps for one sequence."""

    @property
    def length(self) -> int:
        """Tokens in the KV cache."""


StateT = TypeVar("StateT", bound=SequenceState)

_SHUT_DOWN = "the engine is shut down: load it again"


class SequenceTable(Generic[StateT]):
    """The open sequences of one engine, and whether the engine may still be used.

    Every method but `fail` and `shut_down` raises EngineFailedError once one of those two was called.
    """

    def __init__(self, info: EngineInfo) -> None:
        self._info = info
        self._states: dict[int, StateT] = {}
        self._next = 0
        self._unusable: str | None = None

    def __len__(self) -> int:
        return len(self._states)

    def __iter__(self) -> Iterator[StateT]:
        return iter(tuple(self._states.values()))

    def require_usable(self) -> None:
        if self._unusable is not None:
            raise EngineFailedError(self._unusable)

    def require_room(self) -> None:
        """Raises BadInputError where one more sequence cannot be opened."""
        self.require_usable()
        if len(self._states) >= self._info.max_sequences:
            raise BadInputError(
                f"{len(self._states)} sequences are open and the engine holds at most {self._info.max_sequences}: "
                "close one first, or load it with a larger max_sequences"
            )

    def add(self, state: StateT) -> int:
        """The new sequence's id. Raises BadInputError as `require_room` does."""
        self.require_room()
        sequence, self._next = self._next, self._next + 1
        self._states[sequence] = state
        return sequence

    def get(self, sequence: int) -> StateT:
        """Raises UnknownSequenceError."""
        self.require_usable()
        try:
            return self._states[sequence]
        except KeyError:
            raise UnknownSequenceError(
                f"sequence {sequence} is not open in this engine: it was never opened here, or is closed already"
            ) from None

    def replace(self, sequence: int, state: StateT) -> None:
        """For engines whose states are immutable. Raises UnknownSequenceError."""
        self.get(sequence)
        self._states[sequence] = state

    def remove(self, sequence: int) -> StateT:
        """The state of a sequence that is open no more. Raises UnknownSequenceError."""
        state = self.get(sequence)
        del self._states[sequence]
        return state

    def but(self, sequences: Container[int]) -> list[tuple[int, StateT]]:
        """All sequences with their states, but these."""
        return [(sequence, state) for sequence, state in self._states.items() if sequence not in sequences]

    def fail(self, reason: str) -> EngineFailedError:
        """The engine broke: no call works from now on. Returns the error to raise."""
        self._unusable = f"the engine failed and must not be used again; load a new one. It failed with: {reason}"
        return EngineFailedError(self._unusable)

    def shut_down(self) -> bool:
        """Forget all sequences. Returns whether this was the first time."""
        first = self._unusable != _SHUT_DOWN
        self._unusable = _SHUT_DOWN
        self._states.clear()
        return first

    def check_truncate(self, sequence: int, length: int) -> StateT:
        """Raises UnknownSequenceError, or BadInputError where `length` is not within the sequence."""
        state = self.get(sequence)
        if not 0 <= length <= state.length:
            raise BadInputError(f"cannot truncate sequence {sequence} to {length} tokens: it has {state.length}")
        return state

    def check_chunks(self, chunks: Sequence[Chunk]) -> list[TokenArray]:
        """The tokens of each chunk, validated; nothing is changed.

        Raises UnknownSequenceError, BadTokenError, ContextOverflowError, UnsupportedError (a tap this engine has not)
        and BadInputError (an empty chunk, a sequence twice, a tap of no row or of a layer that is not there).
        """
        self.require_usable()
        seen: set[int] = set()
        checked = []
        for chunk in chunks:
            state = self.get(chunk.sequence)
            if chunk.sequence in seen:
                raise BadInputError(f"sequence {chunk.sequence} is in this pass twice: give it one chunk in a pass")
            seen.add(chunk.sequence)
            tokens = check_tokens(chunk.tokens, self._info.vocabulary_size)
            if not len(tokens):
                raise BadInputError(f"the chunk of sequence {chunk.sequence} is empty: give it at least one token")
            if state.length + len(tokens) > self._info.context_length:
                raise ContextOverflowError(
                    f"sequence {chunk.sequence} has {state.length} tokens and {len(tokens)} more would not fit the "
                    f"context of {self._info.context_length}"
                )
            if chunk.tap is not None:
                self._check_tap(chunk.tap)
            checked.append(tokens)
        return checked

    def _check_tap(self, tap: AttentionTap) -> None:
        if tap.rows < 1 or not tap.layers:
            raise BadInputError(f"an attention tap needs at least one row and one layer, not {tap}")
        if not all(0 <= layer < self._info.layers for layer in tap.layers):
            raise BadInputError(
                f"{tap} names a layer that is not there: the model has layers 0 to {self._info.layers - 1}"
            )
        if not self._info.capabilities.attention_tap:
            raise UnsupportedError(
                f"{self._info.engine} with {self._info.model} gives no attention: its capabilities say so"
            )


def check_tokens(tokens: Sequence[int], vocabulary_size: int) -> TokenArray:
    """Token ids as an array. Raises BadTokenError for what is no integer or outside [0, vocabulary_size)."""
    try:
        array = np.asarray(tokens)
    except (TypeError, ValueError, OverflowError) as error:
        raise BadTokenError(f"token ids must be one flat list of integers: {error}") from error
    if not array.size:
        return np.zeros(0, dtype=np.int64)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise BadTokenError(f"token ids must be one flat list of integers, not {array.ndim}-D {array.dtype}")
    low, high = int(array.min()), int(array.max())
    if low < 0 or high >= vocabulary_size:
        bad = low if low < 0 else high
        raise BadTokenError(f"token id {bad} is outside the vocabulary: ids go from 0 to {vocabulary_size - 1}")
    return array.astype(np.int64, copy=False)


def logit_rows(chunk: Chunk) -> int:
    """How many of the chunk's last positions return logits."""
    match chunk.logits:
        case Logits.NONE:
            return 0
        case Logits.LAST:
            return 1
        case Logits.ALL:
            return len(chunk.tokens)


def tap_rows(chunk: Chunk) -> int:
    """How many of the chunk's last positions return attention; 0 without a tap."""
    return min(chunk.tap.rows, len(chunk.tokens)) if chunk.tap is not None else 0


def raise_if_cancelled(cancellation: Cancellation | None) -> None:
    if cancellation is not None and cancellation.cancelled:
        raise Cancelled("the pass was cancelled by its caller; every sequence is as before it")
