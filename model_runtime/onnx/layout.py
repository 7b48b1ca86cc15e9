"""What a decoder graph takes and gives, read from its inputs and outputs.

Two layouts are run. *Dynamic*, as Optimum writes it: `past_key_values.{i}.key` and `.value` of
(batch, kv heads, past, head_dim) grow into `present.{i}.*`. *Fixed*, as NPU compilers need it: every dimension is a
number, `past_key_values` are buffers of S slots, `attention_mask` (1, S + C) marks which
slots and which tokens of the chunk are real, and `present.{i}.*` holds the chunk's C new positions only. Its inputs may
be those of a host graph before it (`model_runtime.onnx.bundle`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from model_runtime.errors import ModelFormatError
from model_runtime.onnx.edits import OWN_INPUTS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from model_runtime.onnx.files import ModelConfig

INPUT_IDS, ATTENTION_MASK, POSITION_IDS, NUM_LOGITS = (
    "input_ids",
    "attention_mask",
    "position_ids",
    "num_logits_to_keep",
)
LOGITS = "logits"
_PAST = re.compile(r"past_key_values\.(\d+)\.(key|value)")
_PRESENT = re.compile(r"present\.(\d+)\.(key|value)")
#: Element types that are run, by ONNX Runtime's name; unsigned ones are codes of a quantized cache.
DTYPES: dict[str, np.dtype[Any]] = {
    "tensor(float)": np.dtype(np.float32),
    "tensor(float16)": np.dtype(np.float16),
    "tensor(int64)": np.dtype(np.int64),
    "tensor(int32)": np.dtype(np.int32),
    "tensor(uint16)": np.dtype(np.uint16),
    "tensor(uint8)": np.dtype(np.uint8),
}


def is_past(name: str) -> bool:
    """Whether this input holds earlier positions' keys or values."""
    return _PAST.fullmatch(name) is not None


def is_present(name: str) -> bool:
    """Whether this output holds keys or values."""
    return _PRESENT.fullmatch(name) is not None


class TensorInfo(Protocol):
    """An input or output as ONNX Runtime describes it; a dimension is a number, a name or None."""

    name: str
    type: str
    shape: list[Any]


@dataclass(frozen=True, slots=True)
class FixedShape:
    """The numbers a fixed-shape graph is compiled to: tokens in a chunk, slots of the past."""

    chunk: int
    slots: int


@dataclass(frozen=True, slots=True)
class DecoderLayout:
    layers: int
    kv_heads: int
    head_dim: int
    vocabulary_size: int
    kv_dtype: np.dtype[Any]
    #: Of the inputs other than KV, by name.
    input_dtypes: dict[str, np.dtype[Any]]
    past_names: tuple[str, ...]
    present_names: tuple[str, ...]
    #: The graph runs any number of sequences at once.
    batch: bool
    fixed: FixedShape | None

    @property
    def kv_bytes_per_token(self) -> int:
        return 2 * self.layers * self.kv_heads * self.head_dim * self.kv_dtype.itemsize


def read_layout(
    inputs: Sequence[TensorInfo], outputs: Sequence[TensorInfo], config: ModelConfig, name: str
) -> DecoderLayout:
    """Raises ModelFormatError saying which input or output of the graph `name` is missing or not understood."""
    given = {tensor.name: tensor for tensor in inputs if tensor.name not in OWN_INPUTS}
    gives = {tensor.name: tensor for tensor in outputs}
    past = sorted((int(m[1]), m[2], key) for key in given if (m := _PAST.fullmatch(key)))
    layers = len(past) // 2
    expected = [(layer, part) for layer in range(layers) for part in ("key", "value")]
    if not layers or [(layer, part) for layer, part, _ in past] != expected:
        raise ModelFormatError(
            f"{name} is no decoder with a KV cache: it needs the inputs past_key_values.<layer>.key and .value of "
            "each layer, as Optimum's text-generation-with-past writes them"
        )
    past_names = tuple(key for _, _, key in past)
    present_names = tuple(f"present.{layer}.{part}" for layer, part in expected)
    missing = [key for key in (LOGITS, *present_names) if key not in gives]
    missing += [key for key in (INPUT_IDS, ATTENTION_MASK) if key not in given]
    if missing:
        raise ModelFormatError(f"{name} lacks {', '.join(missing)}: it is not in the layout that Optimum writes")
    known = {INPUT_IDS, ATTENTION_MASK, POSITION_IDS, NUM_LOGITS, *past_names}
    if unknown := sorted(set(given) - known):
        raise ModelFormatError(
            f"{name} needs the input {', '.join(unknown)}, which this engine does not know how to fill: export the "
            "decoder alone, with its KV cache and without branches (for example model.onnx of Optimum 1.14 and later)"
        )
    kv = given[past_names[0]]
    if len(kv.shape) != 4:
        raise ModelFormatError(f"{name}: {kv.name} has shape {kv.shape}, not (batch, heads, past, head_dim)")
    kv_dtype = _dtype(kv, name)
    if kv_dtype.kind != "f" and not (kv_dtype.kind == "u" and isinstance(kv.shape[2], int)):
        raise ModelFormatError(
            f"{name}: {kv.name} is {kv.type}, and only float32 and float16 KV is run (and codes, in fixed shapes)"
        )
    return DecoderLayout(
        layers=layers,
        kv_heads=_number(kv.shape[1], None, name, "the number of KV heads"),
        head_dim=_number(kv.shape[3], config.head_dim, name, "head_dim"),
        vocabulary_size=_number(gives[LOGITS].shape[-1], config.vocabulary_size, name, "the vocabulary's size"),
        kv_dtype=kv_dtype,
        input_dtypes={key: _dtype(given[key], name) for key in given if key not in past_names},
        past_names=past_names,
        present_names=present_names,
        batch=not isinstance(given[INPUT_IDS].shape[0], int),
        fixed=_fixed(given, gives, past_names, present_names, name),
    )


def _fixed(
    given: dict[str, TensorInfo],
    gives: dict[str, TensorInfo],
    past_names: tuple[str, ...],
    present_names: tuple[str, ...],
    name: str,
) -> FixedShape | None:
    chunk, slots = given[INPUT_IDS].shape[-1], given[past_names[0]].shape[2]
    if not isinstance(chunk, int) and not isinstance(slots, int):
        return None
    if not isinstance(chunk, int) or not isinstance(slots, int):
        raise ModelFormatError(
            f"{name} fixes one of the chunk ({chunk}) and the past ({slots}), and either both or none must be fixed"
        )
    wanted = {
        INPUT_IDS: [1, chunk],
        ATTENTION_MASK: [1, slots + chunk],
        **({POSITION_IDS: [1, chunk]} if POSITION_IDS in given else {}),
    }
    for key, shape in wanted.items():
        if list(given[key].shape) != shape:
            raise ModelFormatError(f"{name}: the fixed-shape input {key} must be {shape}, not {given[key].shape}")
    for key, axis in ((present_names[0], 2), (LOGITS, 1)):
        if gives[key].shape[axis] != chunk:
            raise ModelFormatError(
                f"{name}: {key} must hold the {chunk} positions of the chunk and no others, not {gives[key].shape}"
            )
    return FixedShape(chunk, slots)


def _dtype(tensor: TensorInfo, name: str) -> np.dtype[Any]:
    try:
        return DTYPES[tensor.type]
    except KeyError:
        raise ModelFormatError(f"{name}: {tensor.name} is {tensor.type}, which this engine does not run") from None


def _number(size: Any, otherwise: int | None, name: str, what: str) -> int:
    if isinstance(size, int):
        return size
    if otherwise is None:
        raise ModelFormatError(f"{name} leaves {what} open ({size}), and config.json does not say it either")
    return otherwise
