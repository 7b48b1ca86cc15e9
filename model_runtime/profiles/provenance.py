"""Where a profile's figures come from, and how a profile's file is read and written."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, TypeVar

import msgspec
from msgspec import Meta

from model_runtime.errors import ModelFormatError, ModelNotFoundError

Text: TypeAlias = Annotated[str, Meta(min_length=1)]
Positive: TypeAlias = Annotated[float, Meta(gt=0)]
NotNegative: TypeAlias = Annotated[float, Meta(ge=0)]
#: Of the layout of a profile's file; a file without it is of version 1.
Version: TypeAlias = Literal[1]

_PACKAGE = Path(__file__).parent.parent


class Measurement(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How figures were measured. A profile without one was published by somebody else: the two are never mixed."""

    #: The day in UTC, ISO 8601.
    date: Annotated[str, Meta(pattern=r"^\d{4}-\d{2}-\d{2}$")]
    #: The machine that it ran on, in words.
    machine: Text
    #: What to run to measure the same again.
    command: Text
    model: str = ""
    quantization: str = ""
    engine: str = ""
    #: The points that the profile's figures were fitted to: name → rows of numbers, units in the name.
    points: dict[str, list[list[float]]] = {}


_P = TypeVar("_P", bound=msgspec.Struct)


def read_profile(kind: type[_P], folder: str, what: str, name_or_path: str | Path) -> _P:
    """A shipped profile by name, or one from a JSON file. Raises ModelNotFoundError, ModelFormatError."""
    path = Path(name_or_path)
    if path.suffix != ".json":
        path = _PACKAGE / folder / f"{name_or_path}.json"
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelNotFoundError(
            f"no {what} profile {str(name_or_path)!r} ({error.strerror}): "
            f"give the path of a .json file, or one of {', '.join(shipped(folder))}"
        ) from error
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.DecodeError as error:
        raise ModelFormatError(f"the {what} profile {path} is not valid: {error}") from error


def profile_text(profile: msgspec.Struct) -> str:
    """What `read_profile` reads: JSON of what differs from the defaults."""
    built: dict[str, Any] = msgspec.to_builtins(profile)
    optional = zip(reversed(profile.__struct_fields__), reversed(profile.__struct_defaults__), strict=False)
    defaults = {name: msgspec.to_builtins(value) for name, value in optional if value is not msgspec.NODEFAULT}
    kept = {name: value for name, value in built.items() if name == "version" or value != defaults.get(name, msgspec)}
    return msgspec.json.format(msgspec.json.encode(kept), indent=2).decode() + "\n"


def shipped(folder: str) -> list[str]:
    """The names of the profiles that come with the package."""
    return sorted(path.stem for path in (_PACKAGE / folder).glob("*.json"))
