"""What a service and one of its engine processes tell each other, and how that is framed: length, then MessagePack.

Both are the same version of the same code on one machine; times are on its monotonic clock, which they share.
Generations are known by a key that the service gives, a new one wherever a generation goes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, TypeAlias

import msgspec
import numpy as np

from cloud_service.metrics import Occupancy
from cloud_service.refinement.contract import Evidence
from cloud_service.scheduler.jobs import Ended, Failed, Job, Late, Refusal, Seen, Ticket
from model_runtime.core import EngineInfo, FloatArray
from wire_protocol.messages import Usage

_LENGTH = struct.Struct("<I")


class _Frame(msgspec.Struct, frozen=True, tag=True, array_like=True):
    pass


class Segment(_Frame, frozen=True):
    """A KV cache of `tokens` tokens in shared memory; see `shared_kv`."""

    name: str
    size: int
    tokens: int


# --- to the engine process ------------------------------------------------------------------------------------------


class Load(_Frame, frozen=True):
    """The first frame: the settings of the service, as JSON has them."""

    settings: dict[str, Any]


class Offer(_Frame, frozen=True):
    """Answered by `Took` or `TurnedAway`."""

    key: int
    job: Job
    segment: Segment | None = None


class Extend(_Frame, frozen=True):
    key: int
    grant: int


class Progress(_Frame, frozen=True):
    """See `Backend.progress`."""

    key: int
    shown: int
    pace: float
    ready_in: float | None


class Leave(_Frame, frozen=True):
    """End it. `Over` says when that is done, and its place free."""

    key: int


class Resume(_Frame, frozen=True):
    """Nobody took what was handed over."""

    key: int


class Drain(_Frame, frozen=True):
    """Hold no grant open any more."""


# --- from the engine process ----------------------------------------------------------------------------------------


class Progressing(_Frame, frozen=True):
    """How far the load is: `download` or `load`, from 0 to 1."""

    stage: str
    fraction: float


class Loaded(_Frame, frozen=True):
    info: EngineInfo


class NotLoaded(_Frame, frozen=True):
    """The model cannot be loaded, here or in any other process."""

    message: str


class Took(_Frame, frozen=True):
    key: int
    ticket: Ticket


class TurnedAway(_Frame, frozen=True):
    key: int
    refusal: Refusal


class Gave(_Frame, frozen=True):
    """Output tokens of one pass or several: keys and what each got, in order. Read in one go, as tokens are what a
    service hears most."""

    parts: tuple[tuple[int, tuple[int, ...]], ...]


class Array(_Frame, frozen=True):
    """float32, row by row."""

    shape: tuple[int, ...]
    data: bytes

    @classmethod
    def of(cls, array: FloatArray | None) -> Array | None:
        return None if array is None else cls(array.shape, np.ascontiguousarray(array, np.float32).tobytes())

    @property
    def array(self) -> FloatArray:
        return np.frombuffer(self.data, np.float32).reshape(self.shape)


class Showed(_Frame, frozen=True):
    """Evidence for a scorer."""

    key: int
    stage: str
    attention: Array | None
    layers: tuple[int, ...]
    logprobs: Array | None

    @classmethod
    def of(cls, key: int, seen: Seen) -> Showed:
        evidence = seen.evidence
        return cls(key, seen.stage, Array.of(evidence.attention), evidence.layers, Array.of(evidence.logprobs))

    @property
    def seen(self) -> Seen:
        attention = None if self.attention is None else self.attention.array
        logprobs = None if self.logprobs is None else self.logprobs.array
        evidence = Evidence(attention, self.layers, logprobs)
        return Seen("prompt" if self.stage == "prompt" else "answer", evidence)


class Handed(_Frame, frozen=True):
    """The KV cache lies there until its key gets `Leave` or `Resume`."""

    key: int
    segment: Segment
    usage: Usage


class Over(_Frame, frozen=True):
    """The last frame of a key that was taken. With neither, its first token would have come too late."""

    key: int
    ended: Ended | None = None
    failed: Failed | None = None

    @property
    def event(self) -> Ended | Late | Failed:
        return self.ended or self.failed or Late()


class State(_Frame, frozen=True):
    """Comes every `WORD_EVERY` seconds, whatever the engine does."""

    occupancy: Occupancy
    #: How long the pass under way has taken so far.
    pass_s: float
    #: Engine time and tokens since the last one.
    busy_s: float
    prefill_tokens: int
    decode_tokens: int


class Broke(_Frame, frozen=True):
    """The engine failed; the process ends."""

    message: str


ToEngine: TypeAlias = Load | Offer | Extend | Progress | Leave | Resume | Drain
FromEngine: TypeAlias = (
    Progressing | Loaded | NotLoaded | Took | TurnedAway | Gave | Showed | Handed | Over | State | Broke
)

WORD_EVERY = 0.25

_encoder = msgspec.msgpack.Encoder()
to_engine: msgspec.msgpack.Decoder[ToEngine] = msgspec.msgpack.Decoder(ToEngine)
from_engine: msgspec.msgpack.Decoder[FromEngine] = msgspec.msgpack.Decoder(FromEngine)


def encode(frame: ToEngine | FromEngine) -> bytes:
    data = _encoder.encode(frame)
    return _LENGTH.pack(len(data)) + data


class Splitter:
    """Bytes as they come in, whole frames out."""

    def __init__(self) -> None:
        self._pending = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        self._pending += data
        start = 0
        while len(self._pending) - start >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._pending, start)
            end = start + _LENGTH.size + length
            if len(self._pending) < end:
                break
            yield bytes(self._pending[start + _LENGTH.size : end])
            start = end
        del self._pending[:start]
