"""Which files a model on disk consists of, what its config.json says, and a fingerprint of its weights."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model_runtime.errors import ModelFormatError, ModelNotFoundError
from model_runtime.onnx.graph import Graph, read_graph

# In order of preference, as Optimum, ONNX Runtime and onnx-community name decoders.
_NAMES = (
    "model.onnx",
    "model_fp16.onnx",
    "model_quantized.onnx",
    "model_int8.onnx",
    "model_q4.onnx",
    "model_q4f16.onnx",
    "decoder_with_past_model.onnx",
)
_WHOLE_FILE = 16 << 20
_END, _BLOCK, _BLOCKS = 1 << 20, 16 << 10, 256


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """What config.json says about the decoder; None where it says nothing."""

    architecture: str
    heads: int
    head_dim: int | None
    context_length: int | None
    vocabulary_size: int | None


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """One model on disk."""

    graph_path: Path
    #: Where config.json and tokenizer.json are.
    folder: Path
    graph: Graph
    config: ModelConfig

    @property
    def external(self) -> tuple[Path, ...]:
        """The files beside the graph that hold its weights."""
        return tuple(self.graph_path.parent / name for name in self.graph.external)


def find_model(path: Path) -> ModelFiles:
    """The model at `path`: a folder, or one .onnx file. Raises ModelNotFoundError, ModelFormatError."""
    if not path.exists():
        raise ModelNotFoundError(f"{path} is not there: expected a model folder or an .onnx file")
    graph_path = path if path.is_file() else _choose(path)
    if graph_path.suffix != ".onnx":
        raise ModelFormatError(f"{graph_path} is no .onnx file: ONNX Runtime needs one, or a folder that holds one")
    folder = _config_folder(graph_path)
    config = read_config(folder / "config.json")
    graph = read_graph(graph_path)
    files = ModelFiles(graph_path, folder, graph, config)
    for needed in files.external:
        if not needed.is_file():
            raise ModelNotFoundError(f"{needed} is not there: {graph_path.name} keeps weights in it, so put it beside")
        if not needed.stat().st_size:
            raise ModelFormatError(f"{needed} is empty: download or export it again")
    return files


def fingerprint(files: ModelFiles) -> str:
    """A hex digest of the graph and its weights.

    Each file counts with its size and its content: all of it up to 16 MiB, of larger files the first and the last
    MiB and 256 blocks of 16 KiB spread evenly, so that gigabytes take a few milliseconds. Two models trained apart
    differ nearly everywhere, so that tells them apart; it is no protection against a file forged on purpose.
    """
    digest = hashlib.sha256(b"pd-device onnx model 1")
    for path in (files.graph_path, *files.external):
        size = path.stat().st_size
        digest.update(size.to_bytes(8, "little"))
        with path.open("rb") as file:
            if size <= _WHOLE_FILE:
                digest.update(file.read())
                continue
            spread = (_END + index * (size - 2 * _END - _BLOCK) // (_BLOCKS - 1) for index in range(_BLOCKS))
            for offset, length in ((0, _END), *((at, _BLOCK) for at in spread), (size - _END, _END)):
                file.seek(offset)
                digest.update(file.read(length))
    return digest.hexdigest()


def read_config(path: Path) -> ModelConfig:
    """Raises ModelNotFoundError, ModelFormatError naming the key."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelNotFoundError(f"{path} is not there: it belongs beside the .onnx file, or one folder up") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ModelFormatError(f"{path} is no JSON: {error}") from error
    if not isinstance(raw, dict):
        raise ModelFormatError(f"{path} must hold a JSON object, not {type(raw).__name__}")
    # Models of several modalities keep the decoder's part apart.
    inner = raw.get("text_config")
    values: dict[str, Any] = inner if isinstance(inner, dict) else raw
    heads = _integer(path, values, "num_attention_heads", "n_head")
    if heads is None:
        raise ModelFormatError(f"{path} does not say num_attention_heads")
    head_dim = _integer(path, values, "head_dim")
    width = _integer(path, values, "hidden_size", "n_embd")
    if head_dim is None and width is not None:
        head_dim = width // heads
    architecture = values.get("model_type", raw.get("model_type", ""))
    if not isinstance(architecture, str) or not architecture:
        raise ModelFormatError(f"{path} names no model_type, such as llama or qwen2")
    return ModelConfig(
        architecture=architecture,
        heads=heads,
        head_dim=head_dim,
        context_length=_integer(path, values, "max_position_embeddings", "n_positions"),
        vocabulary_size=_integer(path, values, "vocab_size"),
    )


def _integer(path: Path, values: dict[str, Any], *keys: str) -> int | None:
    for key in keys:
        if (value := values.get(key)) is not None:
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ModelFormatError(f"{path}: {key} must be a whole number from 1, not {value!r}")
            return value
    return None


def _choose(folder: Path) -> Path:
    for place in (folder, folder / "onnx"):
        for name in _NAMES:
            if (place / name).is_file():
                return place / name
        if len(others := sorted(place.glob("*.onnx"))) == 1:
            return others[0]
        if others:
            names = ", ".join(file.name for file in others)
            raise ModelFormatError(f"{place} holds several graphs ({names}) and none named model.onnx: name the file")
    raise ModelNotFoundError(f"{folder} holds no .onnx file, nor does its folder onnx{os.sep}")


def _config_folder(graph_path: Path) -> Path:
    beside, above = graph_path.parent, graph_path.parent.parent
    if not (beside / "config.json").is_file() and (above / "config.json").is_file():
        return above
    return beside
