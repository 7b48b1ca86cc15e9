"""A conversation as a file: its text, and the device's KV cache with the fingerprint of the model it belongs to.

Layout, little-endian: magic `PDCV`, version (u16), header length (u32), CRC-32 of the header (u32), header (JSON,
UTF-8), then the KV cache as `Engine.export_kv` gave it, which has a checksum of its own. Nothing in it is executed.
"""

from __future__ import annotations

import os
import struct
import tempfile
import zlib
from pathlib import Path
from typing import Any

import msgspec

from device_sdk.conversation.overflow import Overflow
from device_sdk.conversation.turns import Turn
from device_sdk.errors import ConversationFileError, OtherModelError
from device_sdk.generation.reading import Reading
from model_runtime.core import EngineInfo, Message
from model_runtime.tools.spec import ToolCall

_MAGIC = b"PDCV"
_VERSION = 1
_PREFIX = struct.Struct("<4sHII")


class SavedTurn(msgspec.Struct, frozen=True):
    asked: list[dict[str, Any]]
    answer: str
    tool_calls: list[ToolCall]
    complete: bool


class Saved(msgspec.Struct, frozen=True):
    """What a file says beside the KV cache itself."""

    system: str | None
    overflow: str
    turns: list[SavedTurn]
    dropped: int
    #: Of the engine whose KV cache it is; empty where there is none.
    engine: str = ""
    model: str = ""
    model_fingerprint: str = ""
    tokens: list[int] = []
    taken: list[tuple[int, int]] = []
    #: Bytes of the KV cache.
    kv_bytes: int = 0

    def check_engine(self, info: EngineInfo | None, path: Path) -> None:
        """Raises OtherModelError where the KV cache is none of this engine's."""
        if not self.kv_bytes:
            return
        if info is None:
            here = "no engine is loaded"
        elif (self.engine, self.model_fingerprint) != (info.engine, info.model_fingerprint):
            weights = f"weights {info.model_fingerprint[:12]}, not {self.model_fingerprint[:12]}"
            here = f"this is {info.model} on {info.engine} ({weights})"
        else:
            return
        raise OtherModelError(
            f"the KV cache in {path} belongs to {self.model} on {self.engine}, and {here}; load that model, or restore "
            "with kv=False: the text alone, which the device then reads anew"
        )

    def reading(self, info: EngineInfo, path: Path) -> Reading:
        """Raises ConversationFileError where it is no reading of this model's tokens."""
        last = 0
        for start, end in self.taken:
            if not last <= start < end <= len(self.tokens):
                raise ConversationFileError(f"{path} is damaged: it reads the span {start}…{end} of its tokens")
            last = end
        if not all(0 <= token < info.vocabulary_size for token in self.tokens):
            raise ConversationFileError(f"{path} is damaged: it holds tokens that the model does not have")
        return Reading(tuple(self.tokens), tuple((start, end) for start, end in self.taken))


def saved_turns(turns: list[Turn]) -> list[SavedTurn]:
    """As they are saved: without reports, which are about machines and times."""
    return [
        SavedTurn(msgspec.to_builtins(turn.asked), turn.answer, list(turn.tool_calls), turn.complete) for turn in turns
    ]


def restored_turns(saved: Saved, path: Path) -> list[Turn]:
    """Raises ConversationFileError."""
    try:
        Overflow(saved.overflow)
        turns = [
            Turn(tuple(map(_message, turn.asked)), turn.answer, tuple(turn.tool_calls), turn.complete)
            for turn in saved.turns
        ]
    except (KeyError, TypeError, ValueError, msgspec.ValidationError) as error:
        raise ConversationFileError(f"{path} is damaged: a turn cannot be read ({error!r})") from None
    if not all(turn.asked for turn in turns) or not 0 <= saved.dropped <= len(turns):
        raise ConversationFileError(f"{path} is damaged: {saved.dropped} of {len(turns)} turns are left out")
    return turns


def _message(fields: dict[str, Any]) -> Message:
    message = Message(role=msgspec.convert(fields["role"], str), content=msgspec.convert(fields["content"], str))
    if "tool_calls" in fields:
        message["tool_calls"] = msgspec.convert(fields["tool_calls"], list[ToolCall])
    if "tool_call_id" in fields:
        message["tool_call_id"] = msgspec.convert(fields["tool_call_id"], str)
    return message


def write(path: Path, saved: Saved, kv: bytes) -> None:
    """Whole or not at all: an older file stays until the new one is on the disk. Only this user may read it. Raises
    ConversationFileError."""
    header = msgspec.json.encode(saved)
    prefix = _PREFIX.pack(_MAGIC, _VERSION, len(header), zlib.crc32(header))
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = Path(file.name)
            try:
                for part in (prefix, header, kv):
                    file.write(part)
                file.flush()
                os.fsync(file.fileno())
                temporary.replace(path)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
    except OSError as error:
        raise ConversationFileError(f"cannot write the conversation to {path}: {error.strerror or error}") from error


def read(path: Path, *, kv: bool) -> tuple[Saved, bytes]:
    """What `write` wrote; without the KV cache where that is not wanted. Raises ConversationFileError."""
    try:
        with path.open("rb") as file:
            start = file.read(_PREFIX.size)
            magic, version, size, crc = _PREFIX.unpack(start) if len(start) == _PREFIX.size else (b"", 0, 0, 0)
            if magic != _MAGIC:
                raise ConversationFileError(f"{path} is no saved conversation: it does not begin with {_MAGIC!r}")
            if version != _VERSION:
                raise ConversationFileError(f"{path} has format version {version}; this SDK reads version {_VERSION}")
            header = file.read(min(size, path.stat().st_size))
            data = file.read() if kv else b""
    except OSError as error:
        raise ConversationFileError(f"cannot read the conversation {path}: {error.strerror or error}") from error
    if len(header) != size or zlib.crc32(header) != crc:
        raise ConversationFileError(f"{path} is damaged: its header is cut short or changed")
    try:
        saved = msgspec.json.decode(header, type=Saved)
    except msgspec.DecodeError as error:
        raise ConversationFileError(f"{path} is damaged: its header cannot be read ({error})") from error
    if kv and len(data) != saved.kv_bytes:
        raise ConversationFileError(f"{path} is damaged: {len(data)} of {saved.kv_bytes} bytes of KV cache are there")
    return saved, data


def with_kv(saved: Saved, info: EngineInfo, reading: Reading, size: int) -> Saved:
    """The same with `size` bytes of KV cache, which hold `reading`."""
    return msgspec.structs.replace(
        saved,
        engine=info.engine,
        model=info.model,
        model_fingerprint=info.model_fingerprint,
        tokens=list(reading.tokens),
        taken=list(reading.taken),
        kv_bytes=size,
    )
