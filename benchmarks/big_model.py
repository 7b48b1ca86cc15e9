"""A decoder of 105 M random parameters: it says nothing sensible, and costs what a model of that size costs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from demos.training import export_gguf, export_hf, export_onnx
from demos.training.architecture import DecoderConfig, parameters, random_weights

if TYPE_CHECKING:
    from pathlib import Path


def big_model(tokenizer: Path, cache: Path) -> Path:
    """The ONNX file, made once (about 20 s and 0.6 GB) and then kept in `cache`."""
    path = _weights(tokenizer, cache) / "model.onnx"
    if not path.exists():
        written = path.with_name("model.tmp.onnx")
        export_onnx.export_dynamic(*export_hf.load(path.parent), written)
        written.rename(path)
    return path


def big_gguf(tokenizer: Path, cache: Path) -> Path:
    """The same weights as an F16 GGUF file (0.2 GB)."""
    path = _weights(tokenizer, cache) / "model.gguf"
    if not path.exists():
        written = path.with_name("model.tmp.gguf")
        export_gguf.export(*export_hf.load(path.parent), path.parent, written, "F16")
        written.rename(path)
    return path


def _weights(tokenizer: Path, cache: Path) -> Path:
    """The folder, named after size and context, with the fp16 weights and the tokenizer of `tokenizer` in it."""
    vocabulary = json.loads((tokenizer / "config.json").read_text(encoding="utf-8"))["vocab_size"]
    config = DecoderConfig(
        vocabulary=vocabulary, width=768, layers=12, heads=12, kv_heads=4, feed_forward=3072, context=4096
    )
    folder = cache / f"random-{parameters(config) // 1_000_000}m-{config.context // 1024}k"
    if not (folder / "config.json").exists():
        export_hf.export(config, random_weights(config, seed=1), tokenizer, folder)
    return folder
