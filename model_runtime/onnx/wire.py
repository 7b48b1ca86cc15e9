"""As much of the protobuf wire format as it takes to look into an ONNX file and to add to it.

The `onnx` package would parse every weight into memory; here a file is walked by its lengths, so that a model of
gigabytes is looked through in milliseconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator

#: A varint's value, or the bytes of a string, message or packed list (fixed-width numbers come as their bytes).
Value: TypeAlias = "int | memoryview"


class WireError(ValueError):
    """These bytes are no protobuf message, or are cut short."""


def fields(message: memoryview) -> Iterator[tuple[int, Value]]:
    """(field number, value) of each field in order; nothing is copied. Raises WireError."""
    return ((number, value) for number, value, _ in spans(message))


def spans(message: memoryview) -> Iterator[tuple[int, Value, memoryview]]:
    """As `fields`, with the bytes of the whole field."""
    at, end = 0, len(message)
    while at < end:
        start = at
        key, at = _varint(message, at)
        number, kind = key >> 3, key & 7
        value: Value
        if kind == 0:
            value, at = _varint(message, at)
        else:
            if kind == 2:
                size, at = _varint(message, at)
            elif kind in (1, 5):
                size = 8 if kind == 1 else 4
            else:
                raise WireError(f"field {number} has wire type {kind}")
            if number == 0 or at + size > end:
                raise WireError(f"field {number} of {size} bytes does not fit the {end - at} that are left")
            value = message[at : at + size]
            at += size
        yield number, value, message[start:at]


def message(value: Value) -> memoryview:
    """A field that must be a string, a message or a list. Raises WireError."""
    if isinstance(value, int):
        raise WireError("a number stands where a message is expected")
    return value


def text(value: Value) -> str:
    """Raises WireError."""
    try:
        return bytes(message(value)).decode()
    except UnicodeDecodeError as error:
        raise WireError(f"a string is not UTF-8: {error}") from error


def write_int(number: int, value: int) -> bytes:
    """A field that holds an integer, negative ones as ten bytes as protobuf has it."""
    return _write_varint(number << 3) + _write_varint(value & 0xFFFF_FFFF_FFFF_FFFF)


def write_bytes(number: int, value: bytes | str) -> bytes:
    """A field that holds a string or a message."""
    data = value.encode() if isinstance(value, str) else value
    return write_head(number, len(data)) + data


def write_head(number: int, size: int) -> bytes:
    """What comes before the `size` bytes of a string or a message."""
    return _write_varint(number << 3 | 2) + _write_varint(size)


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise WireError("the data ends inside a number")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise WireError("a number is longer than ten bytes")


def _write_varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
