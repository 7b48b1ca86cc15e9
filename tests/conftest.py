"""What tests of several packages share: how properties are tested, and one tiny random model in every format."""

from __future__ import annotations

import json
import os
import random
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from demos.training import export_gguf, export_hf, export_onnx
from demos.training.architecture import DecoderConfig, random_weights

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

try:
    import PySide6.QtWidgets  # noqa: F401
except ImportError:  # no Qt, or none of the system's libraries that it needs: the tests of windows skip
    pytest_plugins: list[str] = []
else:
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    pytest_plugins = ["pytestqt.plugin"]

# No example is timed: the machines are shared. CI repeats the same examples, so that a change fails by what it changed;
# everywhere else each run looks at new ones.
settings.register_profile(
    "here", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=bool(os.environ.get("CI"))
)
settings.load_profile("here")

#: Of the fixed-shape graph: no divisor of most lengths, so that padding is always at work.
_CHUNK = 12


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """By architecture (`llama`, `qwen2`), a folder with `model.onnx`, `model.fixed.onnx`, `model.safetensors`,
    `model.gguf`, `config.json` and a byte-level tokenizer. 3 layers, a context of 160 tokens, 272 ids of which the
    first 256 are bytes. Read only: copy it to change it."""
    made: dict[str, Path] = {}

    def make(architecture: str) -> Path:
        if architecture not in made:
            made[architecture] = tmp_path_factory.mktemp(architecture)
            _write_model(made[architecture], architecture)
        return made[architecture]

    return make


@pytest.fixture(scope="session")
def tiny_bundle(
    tiny_model: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, int], Path]:
    """By architecture and bits of weights (32: all is float32), the tiny model as `pd-models export-npu` writes it: in
    passes of 12, 4 (in float32) and 1 tokens. Read only."""
    made: dict[tuple[str, int], Path] = {}

    def make(architecture: str, weights: int) -> Path:
        from model_runtime.export.npu import Plan, export_npu
        from model_runtime.export.quantization import Grid

        key = (architecture, weights)
        if key not in made:
            target = tmp_path_factory.mktemp("bundle") / f"{architecture}-w{weights}"
            rng = random.Random(4)
            prompts = [[rng.randrange(258) for _ in range(60)] for _ in range(12)]
            grid = Grid(weights=weights) if weights != 32 else None
            plan = Plan(lengths=(_CHUNK, 4, 1) if grid is None else (_CHUNK, 1), slots=160, grid=grid)
            export_npu(tiny_model(architecture), target, plan, prompts, lambda _: None)
            made[key] = target
        return made[key]

    return make


def _write_model(folder: Path, architecture: str) -> None:
    config = DecoderConfig(
        vocabulary=272,
        width=64,
        layers=3,
        heads=4,
        kv_heads=2,
        feed_forward=48,
        context=160,
        architecture="qwen2" if architecture == "qwen2" else "llama",
        tied=architecture == "qwen2",
    )
    _write_tokenizer(folder)
    export_hf.export(config, random_weights(config, seed=7), folder, folder)
    config, weights = export_hf.load(folder)
    export_onnx.export_dynamic(config, weights, folder / "model.onnx")
    export_onnx.export_fixed(config, weights, folder / "model.fixed.onnx", _CHUNK, config.context)
    export_gguf.export(config, weights, folder, folder / "model.gguf")


def _write_tokenizer(folder: Path) -> None:
    """Byte-level BPE over 256 bytes, two merges and three special tokens, with a ChatML template."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("t", "h"), ("th", "e")]
    vocabulary = {piece: index for index, piece in enumerate([*letters, *("".join(pair) for pair in merges)])}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|im_start|>", "<|im_end|>", "<|pad|>"]
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in special])
    tokenizer.save(str(folder / "tokenizer.json"))
    template = (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    settings = {"eos_token": "<|im_end|>", "pad_token": "<|pad|>", "chat_template": template}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
