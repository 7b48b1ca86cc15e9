"""A decoder of 107 M random parameters: it says nothing sensible, and costs what a model of that size costs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from demos.training import export_hf, export_onnx
from demos.training.architecture import DecoderConfig, parameters, random_weights

if TYPE_CHECKING:
    from pathlib import Path


def big_model(tokenizer: Path, cache: Path) -> Path:
    """The ONNX file, made once (about 20 s and 0.6 GB) and then kept in `cache`."""
    vocabulary = json.loads((tokenizer / "config.json").read_text(encoding="utf-8"))["vocab_size"]
    config = DecoderConfig(
        vocabulary=vocabulary, width=768, layers=12, heads=12, kv_heads=4, feed_forward=3072, context=2048
    )
    folder = cache / f"random-{parameters(config) // 1_000_000}m"
    path = folder / "model.onnx"
    if not path.exists():
        export_hf.export(config, random_weights(config, seed=1), tokenizer, folder)
        written = folder / "model.tmp.onnx"
        export_onnx.export_dynamic(*export_hf.load(folder), written)
        written.rename(path)
    return path
