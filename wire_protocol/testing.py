"""Hypothesis strategies for users' own tests: any message that the protocol allows. Needs `hypothesis`.

They are made from the types, so that a new field is covered by every property test on the day it is added; lists and
texts are kept short. Only what rules between fields ask for is written by hand.
"""

from __future__ import annotations

from typing import Any, TypeVar, cast, get_args

import msgspec
from hypothesis import strategies as st
from msgspec import inspect

from wire_protocol.messages import CloudMessage, DeviceMessage, Generate, Refine, Spans, Tokens

_LONGEST = 24

_T = TypeVar("_T")


def device_messages() -> st.SearchStrategy[DeviceMessage]:
    """Any message that a device may send."""
    return st.one_of([instances(kind) for kind in get_args(DeviceMessage)])


def cloud_messages() -> st.SearchStrategy[CloudMessage]:
    """Any message that a cloud service may send."""
    return st.one_of([instances(kind) for kind in get_args(CloudMessage)])


def instances(kind: type[_T]) -> st.SearchStrategy[_T]:
    """Any valid value of one message type, or of a part such as `Sampling`."""
    return cast("st.SearchStrategy[_T]", _instances(kind))


def _instances(kind: Any) -> st.SearchStrategy[Any]:
    described = inspect.type_info(kind)
    if not isinstance(described, inspect.StructType):
        raise TypeError(f"{kind!r} is no message and no part of one")
    values = {field.name: _values(field.type) for field in described.fields}
    if kind is Generate:
        return st.one_of(
            _fields(values, always={"id", "grant", "prompt"}, never={"messages", "output_text"}),
            _fields(values, always={"id", "grant", "messages"}, never={"prompt", "output"}),
        ).map(_fitting_generate)
    if kind is Tokens:
        values["ids"], values["count"] = values["ids"].filter(bool), values["count"].filter(bool)
        return st.one_of(
            _fields(values, always={"id", "first", "ids"}, never={"count", "data"}),
            _fields(values, always={"id", "first", "count"}, never={"ids"}),
        ).map(lambda chosen: Tokens(**chosen))
    required = {field.name for field in described.fields if field.required}
    return _fields(values, always=required, never=set()).map(lambda chosen: kind(**chosen))


def _fields(
    values: dict[str, st.SearchStrategy[Any]], *, always: set[str], never: set[str]
) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {name: values[name].filter(lambda value: value is not None) for name in values if name in always},
        optional={name: values[name] for name in values if name not in always | never},
    )


def _fitting_generate(chosen: dict[str, Any]) -> Generate:
    """Leave out protected spans that end after the prompt."""
    refine: Refine | None = chosen.get("refine")
    if refine is not None:
        messages, prompt = chosen.get("messages") or (), chosen.get("prompt") or ()
        length = len(prompt) or sum(len(message.content) for message in messages)
        fitting = tuple(span for span in refine.protected if span[1] <= length)
        chosen = {**chosen, "refine": msgspec.structs.replace(refine, protected=fitting)}
    return Generate(**chosen)


def _values(described: inspect.Type) -> st.SearchStrategy[Any]:
    match described:
        case inspect.IntType(gt=None, ge=int(low), lt=None, le=int(high)):
            return st.integers(low, high)
        case inspect.IntType(gt=None, ge=int(low), lt=int(above), le=None):
            return st.integers(low, above - 1)
        case inspect.FloatType():
            least = described.ge if described.gt is None else described.gt
            return st.floats(least, described.le, exclude_min=described.gt is not None)
        case inspect.StrType(pattern=str(pattern), max_length=int(longest)):
            return st.from_regex(pattern, fullmatch=True).filter(lambda text: len(text) <= longest)
        case inspect.StrType():
            size = _size(described.min_length, described.max_length)
            return st.text(st.characters(codec="utf-8"), min_size=size[0], max_size=size[1])
        case inspect.BytesType():
            size = _size(described.min_length, described.max_length)
            return st.binary(min_size=size[0], max_size=size[1])
        case inspect.BoolType():
            return st.booleans()
        case inspect.NoneType():
            return st.none()
        case inspect.LiteralType(values=values):
            return st.sampled_from(values)
        case inspect.VarTupleType(item_type=inspect.TupleType()):
            return st.lists(st.tuples(st.integers(0, 9), st.integers(1, 10_000)), max_size=_LONGEST).map(_spans)
        case inspect.VarTupleType():
            size = _size(described.min_length, described.max_length)
            return st.lists(_values(described.item_type), min_size=size[0], max_size=size[1]).map(tuple)
        case inspect.UnionType(types=types):
            return st.one_of([_values(one) for one in types])
        case inspect.StructType(cls=kind):
            return _instances(kind)
    raise TypeError(f"no strategy for {described!r}: add one beside the others")


def _size(shortest: int | None, longest: int | None) -> tuple[int, int]:
    return shortest or 0, min(_LONGEST, longest or _LONGEST)


def _spans(steps: list[tuple[int, int]]) -> Spans:
    """Spans from (gap before, length) each."""
    spans, end = [], 0
    for gap, length in steps:
        spans.append((end + gap, end + gap + length))
        end += gap + length
    return tuple(spans)
