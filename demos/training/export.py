"""Write a checkpoint in every format: python -m demos.training.export CHECKPOINT TOKENIZER_FOLDER MODEL_DIR"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from demos.training import export_gguf, export_hf, export_onnx
from demos.training.architecture import DecoderConfig, parameters

if TYPE_CHECKING:
    import numpy as np
    import torch

# What NPU graphs are compiled for: tokens in one pass, and slots of the cache.
CHUNK, SLOTS = 32, 4096


def named(config: DecoderConfig, state: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    """The training module's fused tensors under Hugging Face's names."""
    found = {"model.embed_tokens.weight": state["embed.weight"], "model.norm.weight": state["norm.weight"]}
    sizes = (config.width, config.kv_width, config.kv_width)
    for layer in range(config.layers):
        old, new = f"blocks.{layer}.", f"model.layers.{layer}."
        for kind in ("weight", "bias"):
            for part, tensor in zip("qkv", state[f"{old}qkv.{kind}"].split(sizes), strict=True):
                found[f"{new}self_attn.{part}_proj.{kind}"] = tensor
        gate, up = state[old + "gate_up.weight"].chunk(2)
        found |= {
            new + "input_layernorm.weight": state[old + "attention_norm.weight"],
            new + "self_attn.o_proj.weight": state[old + "o.weight"],
            new + "post_attention_layernorm.weight": state[old + "mlp_norm.weight"],
            new + "mlp.gate_proj.weight": gate,
            new + "mlp.up_proj.weight": up,
            new + "mlp.down_proj.weight": state[old + "down.weight"],
        }
    return {name: tensor.float().numpy() for name, tensor in found.items()}


def main() -> None:
    import torch

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("tokenizer", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("--gguf", choices=("F32", "F16"), default="F32")
    options = parser.parse_args()
    saved = torch.load(options.checkpoint, weights_only=True)
    config = DecoderConfig(**saved["config"])
    export_hf.export(config, named(config, saved["model"]), options.tokenizer, options.model)
    # From here on, the fp16 weights just written are the model.
    config, weights = export_hf.load(options.model)
    export_onnx.export_dynamic(config, weights, options.model / "model.onnx")
    export_onnx.export_fixed(config, weights, options.model / "model.fixed.onnx", CHUNK, SLOTS)
    export_gguf.export(config, weights, options.model, options.model / "model.gguf", options.gguf)
    print(f"{parameters(config)} parameters in {options.model}")


if __name__ == "__main__":
    main()
