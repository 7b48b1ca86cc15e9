"""The nouns of model_runtime: what an engine is, what goes into one forward pass, what comes out.

One synchronous contract for every engine. An engine holds several *sequences* (a token history and its KV cache);
one `forward` call is one pass over chunks of some of them. The caller owns the thread: an engine is used from one
thread at a time, and only `Cancellation.cancel` may be called from another.
"""

from __future__ import annotations

import enum
import threading
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NotRequired, TypeAlias, TypedDict

import msgspec
import numpy as np
from numpy.typing import NDArray

from model_runtime.tools.syntax import HERMES, ToolSyntax

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType
    from typing import Self

    from model_runtime.thinking import ThinkingTags
    from model_runtime.tools.spec import Tool, ToolCall

FloatArray: TypeAlias = NDArray[np.float32]


class Message(TypedDict):
    """One chat message. `role` is `system`, `user`, `assistant` or `tool`."""

    role: str
    #: Empty where an assistant's message is tool calls alone.
    content: str
    #: What an assistant's message asks to have called.
    tool_calls: NotRequired[Sequence[ToolCall]]
    #: Of a `tool` message: which call this is the result of.
    tool_call_id: NotRequired[str]


class Logits(enum.Enum):
    """Which positions of a chunk return logits."""

    NONE = "none"
    LAST = "last"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class AttentionTap:
    """Ask for the attention of a chunk's last `rows` query positions at `layers` (0 is the first)."""

    layers: tuple[int, ...]
    rows: int


# `Chunk` and `Result` are made for every token: a Struct costs a sixth of a frozen dataclass.
class Chunk(msgspec.Struct, frozen=True):
    """Tokens to append to one sequence in a pass. At most one chunk of a sequence in a pass."""

    sequence: int
    tokens: Sequence[int]
    logits: Logits = Logits.LAST
    tap: AttentionTap | None = None


class Result(msgspec.Struct, frozen=True):
    """What one chunk returned. The arrays are the caller's: no later call changes them."""

    #: (positions asked for, vocabulary) float32; zero rows for `Logits.NONE`.
    logits: FloatArray
    #: (layers, heads, rows, keys) float32, each row summing to 1 over all keys so far; None where not asked.
    #: A chunk shorter than the tap's `rows` returns as many rows as it has tokens.
    attention: FloatArray | None = None


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What an engine can do beyond the contract's least."""

    attention_tap: bool = False
    export_kv: bool = True
    #: Several sequences run in one pass of the hardware; where False they run one after the other.
    batched: bool = False
    #: `Cancellation.cancel` ends a pass from inside, not only between passes.
    abort_inside_pass: bool = False
    #: The chunk length that wastes no padding, for engines compiled to fixed shapes.
    chunk_length: int | None = None


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What a loaded engine is. Fingerprints are hex digests; see `model_runtime.fingerprints`."""

    engine: str
    model: str
    architecture: str
    context_length: int
    vocabulary_size: int
    layers: int
    heads: int
    tokenizer_fingerprint: str
    template_fingerprint: str
    #: Of weights and shape: KV moves only between engines that agree on it.
    model_fingerprint: str
    capabilities: Capabilities
    #: What really runs the model, e.g. `CPUExecutionProvider` or `llama.cpp CPU, AVX512`.
    hardware: str
    max_sequences: int
    #: Tokens of one KV cache that all sequences share, and forks with their origin; None where each sequence has
    #: memory of its own for a whole context.
    kv_tokens: int | None = None
    #: Free-form facts for reports (threads, quantization, emulation profile).
    details: dict[str, str] = field(default_factory=dict)


class Cancellation:
    """Asks a running `forward`, load or download to stop. Thread-safe; cancelling twice is harmless."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._callbacks: list[Callable[[], None]] = []

    @property
    def cancelled(self) -> bool:
        return self._event.is_set()

    def cancel(self) -> None:
        with self._lock:
            self._event.set()
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()

    def on_cancel(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` once on cancellation (at once if it already happened); returns the way to unregister."""
        with self._lock:
            if not self._event.is_set():
                self._callbacks.append(callback)
                return lambda: self._forget(callback)
        callback()
        return lambda: None

    def wait(self, timeout: float) -> bool:
        """Sleep for `timeout` seconds or until cancelled; returns whether it was cancelled."""
        return self._event.wait(timeout)

    def _forget(self, callback: Callable[[], None]) -> None:
        with self._lock:
            if callback in self._callbacks:
                self._callbacks.remove(callback)


class Tokenizer(ABC):
    """Text to token ids and back, byte-exact. Safe to use from any thread."""

    @property
    @abstractmethod
    def vocabulary_size(self) -> int: ...

    @property
    @abstractmethod
    def eos_ids(self) -> frozenset[int]:
        """Ids that end an answer (end of sequence, end of turn)."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Equal for two tokenizers exactly when every id stands for the same bytes and the same special token."""

    @property
    @abstractmethod
    def template_fingerprint(self) -> str:
        """Of the chat template's text; a fixed value where the model has none."""

    @property
    def tool_syntax(self) -> ToolSyntax:
        """How the model writes a call, as its chat template declares it; else as it is described to the model."""
        return HERMES

    @property
    def thinking(self) -> ThinkingTags | None:
        """What stands around a reasoning model's thinking, as its chat template says; None where it says nothing."""
        return None

    @abstractmethod
    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """Token ids of `text`, with nothing added in front. `special`: text such as `<|im_end|>` becomes its
        token; otherwise it is encoded as the characters it is made of, so that user text cannot forge a turn."""

    @abstractmethod
    def token_bytes(self, token: int) -> bytes:
        """The bytes that `token` adds to the text; empty for special tokens. Raises BadTokenError."""

    @abstractmethod
    def render_chat(
        self, messages: Sequence[Message], *, add_generation_prompt: bool = True, tools: Sequence[Tool] = ()
    ) -> list[int]:
        """The prompt's token ids, `tools` described in it (in words where the template knows none). Special tokens come
        from the template only, never from a message or a tool. Raises TemplateError."""


class Engine(ABC):
    """Runs one model. Not thread-safe: one thread at a time, chosen by the caller."""

    info: EngineInfo
    tokenizer: Tokenizer

    @abstractmethod
    def open(self) -> int:
        """A new empty sequence. Raises BadInputError where `info.max_sequences` are open."""

    @abstractmethod
    def close(self, sequence: int) -> None:
        """Free a sequence and its KV. Closing twice raises UnknownSequenceError."""

    @abstractmethod
    def fork(self, sequence: int) -> int:
        """A new sequence with the same history; later calls on one do not change the other."""

    @abstractmethod
    def truncate(self, sequence: int, length: int) -> None:
        """Forget all but the first `length` tokens (KV rewind). Longer than the sequence raises BadInputError."""

    @abstractmethod
    def length(self, sequence: int) -> int:
        """Tokens in the sequence's KV cache."""

    @abstractmethod
    def export_kv(self, sequence: int) -> bytes:
        """The sequence's KV cache as contiguous bytes, for `import_kv` of any engine with the same
        `info.engine` and `info.model_fingerprint`. Raises UnsupportedError where the engine cannot."""

    @abstractmethod
    def import_kv(self, data: bytes) -> int:
        """A new sequence from exported bytes. Raises KVMismatchError."""

    @abstractmethod
    def forward(self, chunks: Sequence[Chunk], cancellation: Cancellation | None = None) -> list[Result]:
        """One pass: append each chunk to its sequence; results in the order of the chunks.

        All or nothing: after any raise but EngineFailedError each sequence is as before. Raises BadTokenError,
        ContextOverflowError, UnknownSequenceError, UnsupportedError (a tap that the engine has not), BadInputError
        (an empty chunk, a sequence twice), Cancelled, EngineFailedError.
        """

    @abstractmethod
    def shutdown(self) -> None:
        """Free everything. Idempotent. Any other call afterwards raises EngineFailedError."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.shutdown()
