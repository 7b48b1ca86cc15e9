"""How an exported KV cache is framed: a header that says whose it is, then the engine's own contiguous bytes.

Layout, little-endian: magic `PDKV`, version (u16), header length (u32), CRC-32 of all that follows (u32), header
(JSON, UTF-8), payload. The header holds the engine, the model's fingerprint, the engine's description of the payload
(shape, dtype), the number of tokens and the payload's size.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import asdict, dataclass

import msgspec

from model_runtime.errors import KVMismatchError

_MAGIC = b"PDKV"
_VERSION = 1
_PREFIX = struct.Struct("<4sHII")
_MAX_HEADER = 65_536


@dataclass(frozen=True, slots=True)
class KVHeader:
    """What the payload is. `layout` is the engine's own description; it must agree exactly on import."""

    engine: str
    model_fingerprint: str
    layout: str
    tokens: int
    payload_bytes: int


def pack(payload: bytes | bytearray | memoryview, *, engine: str, fingerprint: str, layout: str, tokens: int) -> bytes:
    """The framed bytes of a sequence of `tokens` tokens."""
    view = memoryview(payload).cast("B")
    header = msgspec.json.encode(asdict(KVHeader(engine, fingerprint, layout, tokens, len(view))))
    crc = zlib.crc32(view, zlib.crc32(header))
    return b"".join((_PREFIX.pack(_MAGIC, _VERSION, len(header), crc), header, view))


def unpack(data: bytes, *, engine: str, fingerprint: str, layout: str) -> tuple[int, memoryview]:
    """(tokens, payload) of bytes that `pack` made for the same engine, model and layout. Raises KVMismatchError."""
    if len(data) < _PREFIX.size:
        raise KVMismatchError(f"this is no exported KV: {len(data)} bytes are shorter than its header")
    magic, version, size, crc = _PREFIX.unpack_from(data)
    if magic != _MAGIC:
        raise KVMismatchError(f"this is no exported KV: it begins with {magic!r}, not {_MAGIC!r}")
    if version != _VERSION:
        raise KVMismatchError(f"the KV has format version {version}; this engine reads version {_VERSION}")
    if size > _MAX_HEADER or len(data) < _PREFIX.size + size:
        raise KVMismatchError("the KV is damaged: its header is cut short")
    if zlib.crc32(memoryview(data)[_PREFIX.size :]) != crc:
        raise KVMismatchError("the KV is damaged: its checksum does not match (bytes are missing or changed)")
    try:
        header = msgspec.json.decode(data[_PREFIX.size : _PREFIX.size + size], type=KVHeader)
    except msgspec.DecodeError as error:
        raise KVMismatchError(f"the KV is damaged: its header cannot be read ({error})") from error
    for what, found, wanted in (
        ("engine", header.engine, engine),
        ("model fingerprint", header.model_fingerprint, fingerprint),
        ("layout", header.layout, layout),
    ):
        if found != wanted:
            raise KVMismatchError(f"the KV is of another {what}: {found!r}, and this engine has {wanted!r}")
    payload = memoryview(data)[_PREFIX.size + size :]
    if len(payload) != header.payload_bytes:
        raise KVMismatchError(f"the KV is damaged: {len(payload)} bytes of {header.payload_bytes} are there")
    return header.tokens, payload
