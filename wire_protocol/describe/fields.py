"""What the types say about themselves: fields, bounds, defaults, and the `#:` comments above them."""

from __future__ import annotations

import inspect as source
import textwrap
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import inspect


@dataclass(frozen=True, slots=True)
class FieldDescription:
    """One row of a message's table."""

    name: str
    type: str
    #: As JSON; None where the field is required.
    default: str | None
    text: str


def summary(kind: type[Any]) -> str:
    """The docstring of a message or part, unwrapped to one line for each paragraph."""
    paragraphs = source.cleandoc(kind.__doc__ or "").split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def fields(kind: type[Any]) -> tuple[FieldDescription, ...]:
    described = inspect.type_info(kind)
    if not isinstance(described, inspect.StructType):
        raise TypeError(f"{kind!r} is no message and no part of one")
    texts = comments(kind)
    return tuple(
        FieldDescription(
            name=field.encode_name,
            type=type_text(field.type),
            default=None if field.required else msgspec.json.encode(field.default).decode(),
            text=texts[field.name],
        )
        for field in described.fields
    )


def comments(kind: type[Any]) -> dict[str, str]:
    """The `#:` comment above each field; a field without one is the `id` that all messages share."""
    texts = dict.fromkeys(kind.__struct_fields__, "The generation that this is about.")
    gathered: list[str] = []
    for line in textwrap.dedent(source.getsource(kind)).splitlines():
        stripped = line.strip()
        if stripped.startswith("#: "):
            gathered.append(stripped.removeprefix("#: "))
            continue
        name = stripped.partition(":")[0]
        if gathered and name in texts:
            texts[name] = " ".join(gathered)
        gathered = []
    return texts


def parts_of(kinds: tuple[type[Any], ...]) -> tuple[type[Any], ...]:
    """The parts that these messages are made of, in the order of first use."""
    found: dict[type[Any], None] = {}

    def walk(described: inspect.Type) -> None:
        match described:
            case inspect.StructType(cls=kind, tag=None):
                found[kind] = None
                for field in described.fields:
                    walk(field.type)
            case inspect.StructType():
                for field in described.fields:
                    walk(field.type)
            case inspect.UnionType():
                for one in described.types:
                    walk(one)
            case inspect.VarTupleType():
                walk(described.item_type)

    for kind in kinds:
        walk(inspect.type_info(kind))
    return tuple(found)


def type_text(described: inspect.Type) -> str:
    """A type with its bounds, for people."""
    match described:
        case inspect.BoolType():
            return "true or false"
        case inspect.NoneType():
            return "null"
        case inspect.IntType(ge=low, le=high, lt=above):
            return f"integer, {_number(low)} to {_number(high if above is None else above - 1)}"
        case inspect.FloatType(gt=None, ge=low, le=high):
            return f"number, {_number(low)} to {_number(high)}"
        case inspect.FloatType(gt=low, le=high):
            return f"number, above {_number(low)}, to {_number(high)}"
        case inspect.StrType(pattern=str(pattern)):
            return f"text of {_length(described)} characters, matching `{pattern}`"
        case inspect.StrType():
            return f"text of {_length(described)} characters"
        case inspect.BytesType():
            return f"bytes, {_length(described)} (base64 in JSON)"
        case inspect.LiteralType(values=values):
            return " or ".join(f"`{value}`" for value in values)
        case inspect.TupleType(item_types=(start, _)):
            return f"[start, end) of {type_text(start)}"
        case inspect.VarTupleType():
            return f"list of {_length(described)}: {type_text(described.item_type)}"
        case inspect.UnionType(types=types):
            return ", or ".join(type_text(one) for one in types)
        case inspect.StructType(cls=kind):
            return f"[`{kind.__name__}`](#{kind.__name__.lower()})"
    raise TypeError(f"no words for {described!r}: add them beside the others")


def _length(described: inspect.StrType | inspect.BytesType | inspect.VarTupleType) -> str:
    return f"{_number(described.min_length or 0)} to {_number(described.max_length)}"


def _number(value: float | None) -> str:
    if value is None:
        raise TypeError("a field without bounds: every value that travels has some")
    return f"{value:,}" if isinstance(value, int) else f"{value:,.10g}"
