"""What a load is asked for: checked before anything is loaded, and completed where nothing is said."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from model_runtime.errors import BadInputError, UnsupportedError
from model_runtime.llama.context import PRECISIONS

if TYPE_CHECKING:
    from model_runtime.llama.model import Model

#: The context taken where none is asked for, if the model was trained for more: its KV cache is allocated at once.
DEFAULT_CONTEXT = 8192

_MAX_SEQUENCES = 256  # llama.cpp's own limit.

#: How many full contexts the KV cache holds where `kv_tokens` is not given.
_FULL_CONTEXTS = 4


def check_arguments(
    context_length: int | None, max_sequences: int, kv_tokens: int | None, threads: int | None, kv_precision: str
) -> None:
    """Raises BadInputError for what is out of range."""
    for name, value in (
        ("context_length", context_length),
        ("max_sequences", max_sequences),
        ("kv_tokens", kv_tokens),
        ("threads", threads),
    ):
        if value is not None and value < 1:
            raise BadInputError(f"{name} must be at least 1, not {value}")
    if max_sequences > _MAX_SEQUENCES:
        raise BadInputError(f"max_sequences must be at most {_MAX_SEQUENCES}, not {max_sequences}")
    if kv_precision not in PRECISIONS:
        raise BadInputError(f"kv_precision must be one of {', '.join(PRECISIONS)}, not {kv_precision!r}")


def check_tap_layers(tap_layers: tuple[int, ...], layers: int, model: Model) -> None:
    """Raises BadInputError, or UnsupportedError for a model whose attention would come out wrong."""
    if len(set(tap_layers)) < len(tap_layers) or not all(0 <= layer < layers for layer in tap_layers):
        raise BadInputError(f"tap_layers={tap_layers}: name each layer once; the model has layers 0 to {layers - 1}")
    if not model.keeps_all_keys:
        raise UnsupportedError(
            f"{model.architecture} models have recurrent or sliding-window layers, whose attention cannot be tapped: "
            "load without tap_layers"
        )


def default_cells(model: Model, length: int, max_sequences: int) -> int:
    """Tokens in the KV cache where `kv_tokens` is not given."""
    cells = length * min(max_sequences, _FULL_CONTEXTS)
    # LongRoPE models take other frequencies where the cache as a whole, not a sequence, is longer than this.
    return min(cells, model.original_context) if length <= model.original_context else cells


def usable_cpus() -> int:
    """How many CPUs this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
