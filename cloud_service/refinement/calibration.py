"""What calibration found of a model: the heads that retrieve, and the guard's boundary. A small versioned file.

One file can hold several models (the ONNX and the GGUF file of one folder); each is known by the fingerprint of its
weights, so that a calibration is never taken for a model it was not made for.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from cloud_service.refinement.attention import ROWS, Head
from cloud_service.refinement.floors import Floors
from cloud_service.refinement.guard import Boundary

#: Its name beside a model.
FILE_NAME = "refinement.json"


class CalibrationError(Exception):
    """A calibration that cannot be read, or does not fit: the message says which file, what was wrong, what to do."""


class Calibration(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Of one model."""

    #: Its name, and what ran it; for people.
    model: str
    engine: str
    #: (layer, head), the best first.
    heads: Annotated[tuple[Head, ...], Meta(min_length=1, max_length=64)]
    #: The same for the answer's first tokens as queries; none where they do not help.
    answer_heads: Annotated[tuple[Head, ...], Meta(max_length=64)] = ()
    #: The prompt's last rows to look at.
    rows: Annotated[int, Meta(ge=1, le=256)] = ROWS
    #: None where no probe asked for what needs the whole prompt.
    boundary: Boundary | None = None
    #: How far below the best line a line may be; None where too few probes rested on several lines to tell.
    floors: Floors | None = None
    #: What was measured on the probes, by name; for people.
    measured: dict[str, float] = {}

    @property
    def layers(self) -> tuple[int, ...]:
        """All that have to be tapped."""
        return tuple(sorted({layer for layer, _ in self.named}))

    @property
    def named(self) -> tuple[Head, ...]:
        """All heads that it speaks of."""
        found = [*self.heads, *self.answer_heads]
        for watching in (self.boundary, self.floors):
            found += () if watching is None else watching.heads
        return tuple(found)


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    version: Literal[1]
    #: By the fingerprint of the model's weights.
    models: dict[str, Calibration]


def beside(model: str) -> Path | None:
    """Where the calibration of a model on disk is looked for; None for one on the Hub."""
    path = Path(model)
    if path.is_dir():
        return path / FILE_NAME
    return path.parent / FILE_NAME if path.is_file() else None


def load(path: Path, fingerprint: str, *, layers: int, heads: int) -> Calibration | None:
    """The calibration of the model with this fingerprint; None where the file has none. Raises CalibrationError."""
    found = _read(path).models.get(fingerprint)
    if found is not None and not all(0 <= layer < layers and 0 <= head < heads for layer, head in found.named):
        raise CalibrationError(f"{path} names heads that the model has not: run pd-cloud calibrate again")
    return found


def save(path: Path, fingerprint: str, calibration: Calibration) -> None:
    """Put a calibration in the file, beside those of other models. Raises CalibrationError, OSError."""
    models = dict(_read(path).models) if path.exists() else {}
    models[fingerprint] = calibration
    data = msgspec.json.encode(_File(1, models))
    path.write_bytes(msgspec.json.format(data, indent=1) + b"\n")


def _read(path: Path) -> _File:
    try:
        return msgspec.json.decode(path.read_bytes(), type=_File)
    except OSError as error:
        raise CalibrationError(f"{path} cannot be read: {error.strerror}") from error
    except msgspec.DecodeError as error:
        raise CalibrationError(
            f"{path} is no calibration of version 1: {error}. Make one with pd-cloud calibrate"
        ) from error
