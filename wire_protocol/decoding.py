"""Bytes to messages of one direction, and errors that say what was wrong with them."""

from __future__ import annotations

import functools
import re
from typing import Any, Generic, NoReturn, Protocol, TypeVar, get_args

import msgspec
from msgspec import inspect

from wire_protocol.errors import InvalidMessageError, MalformedError, MessageTooBigError
from wire_protocol.messages import MAX_GENERATION_ID, GenerationId

#: The largest frame that is ever decoded or sent. A service may set a smaller limit, see `Limits.max_message_bytes`.
MAX_MESSAGE_BYTES = 16 * 1024 * 1024

# An error's text fits `Error.message`, see messages.py.
_LONGEST_TEXT = 500

# What msgspec raises for bytes from outside: UnicodeError for invalid UTF-8, RecursionError for deep nesting.
REFUSALS = (msgspec.MsgspecError, UnicodeError, RecursionError)

_M_co = TypeVar("_M_co", covariant=True)


class _LibraryDecoder(Protocol[_M_co]):
    def decode(self, data: bytes, /) -> _M_co: ...


class _Head(msgspec.Struct):
    """The least to know of a refused message, for the error's text."""

    type: Any = ""
    id: Any = ""


class MessageDecoder(Generic[_M_co]):
    """What one side may send, decoded strictly."""

    def __init__(self, messages: Any, other: Any, library: Any) -> None:
        self._decoder: _LibraryDecoder[_M_co] = library.Decoder(messages)
        self._head: _LibraryDecoder[_Head] = library.Decoder(_Head)
        self._kinds = _by_tag(messages)
        self._other_tags = tuple(_by_tag(other))

    def decode(self, data: bytes) -> _M_co:
        """Raises MalformedError, InvalidMessageError, MessageTooBigError."""
        if len(data) > MAX_MESSAGE_BYTES:
            raise MessageTooBigError(f"a message of {len(data)} bytes; at most {MAX_MESSAGE_BYTES} are allowed")
        try:
            return self._decoder.decode(data)
        except REFUSALS as error:
            self._refuse(error, data)

    def _refuse(self, error: Exception, data: bytes) -> NoReturn:
        # `from None` throughout: msgspec's text is kept, and the traceback of a peer's fault helps nobody.
        if isinstance(error, RecursionError):
            raise MalformedError("nested too deeply: no message has more than four levels") from None
        if isinstance(error, UnicodeError):
            raise MalformedError(f"a text is not valid UTF-8: {getattr(error, 'reason', error)}") from None
        if not isinstance(error, msgspec.ValidationError):
            raise MalformedError(f"malformed data: {error}") from None
        what, path = _split(str(error))
        tag, generation = self._read_head(data)
        kind = self._kinds.get(tag)
        if path == "$.type":
            what = self._explain_type(tag, what)
        elif what.startswith("Invalid enum value") and kind is not None:
            what = f"expected one of {', '.join(_choices(inspect.type_info(kind), path))}"
        if len(what) > _LONGEST_TEXT:  # an unknown field's name is the peer's, and may be megabytes
            what = f"{what[:_LONGEST_TEXT]}…"
            path = f"{path[:_LONGEST_TEXT]}…"
        name = f"`{tag}`" if kind is not None else "message"
        raise InvalidMessageError(
            f"{name} refused at `{path}`: {what}",
            path=path,
            generation=generation if tag == "generate" and is_generation_id(generation) else None,
        ) from None

    def _read_head(self, data: bytes) -> tuple[str, str]:
        """Type and id of a refused message, each empty where it cannot be told."""
        try:
            head = self._head.decode(data)
        except REFUSALS:
            return "", ""
        return (head.type if isinstance(head.type, str) else "", head.id if isinstance(head.id, str) else "")

    def _explain_type(self, tag: str, what: str) -> str:
        if tag in self._other_tags:
            return f"`{tag}` travels in the other direction"
        expected = f"expected one of {', '.join(self._kinds)}"
        return expected if what.startswith("Invalid value") else f"{what}; {expected}"


def _by_tag(messages: Any) -> dict[str, type[msgspec.Struct]]:
    return {str(message.__struct_config__.tag): message for message in get_args(messages)}


def _choices(described: inspect.Type, path: str) -> tuple[str, ...]:
    """The values that a field of fixed choices may have. `path` is one that msgspec made for a value it refused."""
    for step in re.finditer(r"\.(\w+)|\[\d+\]", path):
        match described:
            case inspect.StructType(fields=fields):
                described = next(field.type for field in fields if field.name == step[1])
            case inspect.VarTupleType(item_type=item):
                described = item
        if isinstance(described, inspect.UnionType):  # `… | None`
            described = next(one for one in described.types if not isinstance(one, inspect.NoneType))
    return tuple(str(value) for value in described.values) if isinstance(described, inspect.LiteralType) else ()


def _split(text: str) -> tuple[str, str]:
    """msgspec's text as (what was expected, the path). A field that is unknown or missing becomes part of the path."""
    what, _, place = text.rpartition(" - at ")
    if not what:
        what, place = text, "`$`"
    path = place.removeprefix("`key` in ").strip("`")
    for opening in ("Object contains unknown field `", "Object missing required field `"):
        if what.startswith(opening):
            path = f"{path}.{what.removeprefix(opening).rstrip('`')}"
    return what, path


def is_generation_id(value: str) -> bool:
    """Whether a generation may be called so."""
    return len(value) <= MAX_GENERATION_ID and _fits(value)  # what a peer made up and is long is not kept


@functools.lru_cache(maxsize=4096)
def _fits(value: str) -> bool:
    try:
        msgspec.convert(value, GenerationId)
    except msgspec.ValidationError:
        return False
    return True
