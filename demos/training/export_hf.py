"""Write a model folder as Hugging Face lays it out: config, fp16 safetensors, tokenizer, generation settings."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import numpy as np

from demos.training.architecture import DecoderConfig, shapes

if TYPE_CHECKING:
    from pathlib import Path

    from demos.training.architecture import Weights

_CLASSES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM"}


def export(config: DecoderConfig, weights: Weights, tokenizer_dir: Path, folder: Path) -> None:
    """The fp16 tensors written here are the truth: export the other formats from `load(folder)`."""
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    if tokenizer_dir.resolve() != folder.resolve():
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copyfile(tokenizer_dir / name, folder / name)
    halves = {name: weights[name].astype(np.float16) for name in shapes(config)}
    save_file(halves, str(folder / "model.safetensors"), {"format": "pt"})
    end, padding = special_ids(folder)
    settings = {
        "architectures": [_CLASSES[config.architecture]],
        "model_type": config.architecture,
        "vocab_size": config.vocabulary,
        "hidden_size": config.width,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_dim,
        "intermediate_size": config.feed_forward,
        "max_position_embeddings": config.context,
        "rope_theta": config.rope_theta,
        "rms_norm_eps": config.norm_epsilon,
        "tie_word_embeddings": config.tied,
        "attention_bias": config.biased,
        "hidden_act": "silu",
        "use_cache": True,
        "use_sliding_window": False,
        "bos_token_id": None,
        "eos_token_id": end,
        "pad_token_id": padding,
        "torch_dtype": "float16",
    }
    generation = {"do_sample": False, "eos_token_id": end, "pad_token_id": padding}
    _write(folder / "config.json", settings)
    _write(folder / "generation_config.json", generation)


def load(folder: Path) -> tuple[DecoderConfig, Weights]:
    """A folder's config and its weights as float32."""
    from safetensors.numpy import load_file

    settings = json.loads((folder / "config.json").read_text())
    config = DecoderConfig(
        vocabulary=settings["vocab_size"],
        width=settings["hidden_size"],
        layers=settings["num_hidden_layers"],
        heads=settings["num_attention_heads"],
        kv_heads=settings["num_key_value_heads"],
        feed_forward=settings["intermediate_size"],
        context=settings["max_position_embeddings"],
        architecture=settings["model_type"],
        tied=settings["tie_word_embeddings"],
        rope_theta=settings["rope_theta"],
        norm_epsilon=settings["rms_norm_eps"],
    )
    weights = load_file(str(folder / "model.safetensors"))
    return config, {name: values.astype(np.float32) for name, values in weights.items()}


def special_ids(folder: Path) -> tuple[int, int]:
    """The ids of the end and padding tokens that `tokenizer_config.json` names."""
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    added = {t["content"]: t["id"] for t in json.loads((folder / "tokenizer.json").read_text())["added_tokens"]}
    return added[settings["eos_token"]], added[settings["pad_token"]]


def _write(path: Path, value: dict[str, object]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")
