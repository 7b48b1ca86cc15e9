"""`pd-models export-npu`: from a decoder in ONNX to graphs of fixed shapes, quantized, beside its tokenizer."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from model_runtime.errors import BadInputError
from model_runtime.export.calibration import calibrate
from model_runtime.export.graphs import SharedWeights
from model_runtime.export.lowering import lower
from model_runtime.export.quantization import Grid, quantize
from model_runtime.export.surgery import halves
from model_runtime.onnx.bundle import FORMAT, MANIFEST, Manifest, StageEntry
from model_runtime.onnx.files import ModelFiles, find_model

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_BESIDE = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
)


@dataclass(frozen=True, slots=True)
class Plan:
    """What to compile to. `lengths`: tokens of a pass, of which 1 is for decoding; `slots`: tokens of context."""

    lengths: tuple[int, ...] = (64, 1)
    slots: int = 1024
    #: None: float32, for providers that take no integers.
    grid: Grid | None = field(default_factory=Grid)

    def __post_init__(self) -> None:
        if not self.lengths or len(set(self.lengths)) != len(self.lengths) or min(self.lengths) < 1:
            raise BadInputError(f"lengths must be different numbers from 1, not {self.lengths}")
        if max(self.lengths) > self.slots:
            raise BadInputError(f"a pass of {max(self.lengths)} tokens does not fit a context of {self.slots}")


def export_npu(
    source: Path, target: Path, plan: Plan, prompts: Sequence[Sequence[int]], say: Callable[[str], None]
) -> None:
    """Write the bundle `target` of the model at `source` (a folder or an .onnx file in Optimum's layout).

    `prompts` (token ids) calibrate the grid; they are not needed for float32. `target` appears whole or not at all.
    Raises LoadError where the model is none or cannot be cut, BadInputError where `target` is there already or the
    prompts are too short.
    """
    if target.exists():
        raise BadInputError(f"{target} is there already: remove it, or name another folder")
    files = find_model(source)
    longest = max(plan.lengths)
    # The longest first, as it sees the most tokens in a pass while it is calibrated.
    stages = []
    for tokens in sorted(plan.lengths, reverse=True):
        say(f"passes of {tokens} tokens over {plan.slots} of context")
        stage = halves(files.graph_path, tokens, plan.slots)
        lower(stage.decoder, convolve=plan.grid is not None)
        stages.append(stage)
    if plan.grid is not None:
        say(f"calibration over {len(prompts)} prompts, in passes of {longest}")
        ranges = calibrate(stages[0], plan.slots, prompts)
        say(f"{plan.grid.weights}-bit weights, {plan.grid.activations}-bit activations")
        stages = [quantize(stage, ranges, plan.grid) for stage in stages]
    temporary = target.with_name(f".{target.name}.partial")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        weights = SharedWeights(temporary / "weights.bin")
        entries = []
        for stage in stages:
            entry = StageEntry(stage.tokens, f"host.{stage.tokens}.onnx", f"decoder.{stage.tokens}.onnx")
            weights.save(stage.host, temporary / entry.host)
            weights.save(stage.decoder, temporary / entry.decoder)
            entries.append(entry)
        _write_manifest(temporary, files, plan, entries)
        temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write_manifest(folder: Path, files: ModelFiles, plan: Plan, entries: list[StageEntry]) -> None:
    for name in _BESIDE:
        if (files.folder / name).is_file():
            shutil.copyfile(files.folder / name, folder / name)
    manifest = Manifest(
        format=FORMAT,
        source=files.folder.resolve().name,
        slots=plan.slots,
        activations=plan.grid.activations if plan.grid is not None else 32,
        weights=plan.grid.weights if plan.grid is not None else 32,
        stages=entries,
    )
    (folder / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n")
