"""A decoder compiled to fixed shapes, as `pd-models export-npu` writes it: `npu.json` and the graphs it names.

Each compiled length has two graphs: a *host* graph that the CPU runs by design (embeddings, rotary tables, the mask as
numbers to add), and a *decoder* that the NPU runs alone, from the host's outputs and the cache to logits and new keys
and values. Config and tokenizer lie beside them, as in any model folder.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import msgspec

from model_runtime.errors import ModelFormatError
from model_runtime.onnx.files import ModelFiles, find_model, fingerprint

MANIFEST = "npu.json"
FORMAT = 1


class StageEntry(msgspec.Struct, forbid_unknown_fields=True):
    """One compiled length, in tokens, and its two graphs beside the manifest."""

    tokens: int
    host: str
    decoder: str


class Manifest(msgspec.Struct, forbid_unknown_fields=True):
    """What `npu.json` says. `slots`: tokens of context. `activations` and `weights`: bits, 32 where not quantized."""

    format: int
    source: str
    slots: int
    activations: int
    weights: int
    stages: list[StageEntry]


@dataclass(frozen=True, slots=True)
class StageFiles:
    tokens: int
    host: ModelFiles
    decoder: ModelFiles


@dataclass(frozen=True, slots=True)
class Bundle:
    folder: Path
    manifest: Manifest
    #: The longest first.
    stages: tuple[StageFiles, ...]

    @property
    def precision(self) -> str:
        """Such as `w8a16`, or `float32`."""
        manifest = self.manifest
        return "float32" if manifest.weights == 32 else f"w{manifest.weights}a{manifest.activations}"

    @property
    def fingerprint(self) -> str:
        """Of all graphs: the cache that one provider filled is another's too."""
        digest = hashlib.sha256(b"pd-device npu bundle 1")
        for stage in self.stages:
            digest.update((fingerprint(stage.host) + fingerprint(stage.decoder)).encode())
        return digest.hexdigest()


def find_bundle(path: Path) -> Bundle | None:
    """The bundle at `path` (its folder or its npu.json); None where there is none. Raises ModelFormatError,
    ModelNotFoundError where one is there and damaged."""
    manifest_path = path / MANIFEST if path.is_dir() else path
    if manifest_path.name != MANIFEST or not manifest_path.is_file():
        return None
    try:
        manifest = msgspec.json.decode(manifest_path.read_bytes(), type=Manifest)
    except msgspec.DecodeError as error:
        raise ModelFormatError(f"{manifest_path} is no manifest of pd-models export-npu: {error}") from error
    if manifest.format != FORMAT:
        raise ModelFormatError(
            f"{manifest_path} has format {manifest.format} and this version reads {FORMAT}: export the model anew"
        )
    folder = manifest_path.parent
    stages = tuple(
        StageFiles(entry.tokens, find_model(folder / entry.host), find_model(folder / entry.decoder))
        for entry in sorted(manifest.stages, key=lambda entry: -entry.tokens)
    )
    if not stages:
        raise ModelFormatError(f"{manifest_path} names no graph: export the model anew")
    return Bundle(folder, manifest, stages)
