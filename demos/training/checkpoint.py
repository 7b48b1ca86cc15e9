"""Turn a model folder back into a checkpoint, to train on: python -m demos.training.checkpoint MODEL_DIR CHECKPOINT

Weights come back as rounded to fp16; the hints' heads and the optimizers' state begin anew.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from demos.training import export_hf

if TYPE_CHECKING:
    from demos.training.architecture import DecoderConfig, Weights


def fused(config: DecoderConfig, weights: Weights) -> Weights:
    """The reverse of `export.named`: Hugging Face's tensors under the training module's fused names."""
    found = {"embed.weight": weights["model.embed_tokens.weight"], "norm.weight": weights["model.norm.weight"]}
    for layer in range(config.layers):
        old, new = f"model.layers.{layer}.", f"blocks.{layer}."
        for kind in ("weight", "bias"):
            parts = [weights[f"{old}self_attn.{part}_proj.{kind}"] for part in "qkv"]
            found[f"{new}qkv.{kind}"] = np.concatenate(parts)
        halves = [weights[f"{old}mlp.{part}_proj.weight"] for part in ("gate", "up")]
        found |= {
            new + "attention_norm.weight": weights[old + "input_layernorm.weight"],
            new + "o.weight": weights[old + "self_attn.o_proj.weight"],
            new + "mlp_norm.weight": weights[old + "post_attention_layernorm.weight"],
            new + "gate_up.weight": np.concatenate(halves),
            new + "down.weight": weights[old + "mlp.down_proj.weight"],
        }
    return found


def main() -> None:
    import torch

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("checkpoint", type=Path)
    options = parser.parse_args()
    config, weights = export_hf.load(options.model)
    state = {name: torch.from_numpy(values) for name, values in fused(config, weights).items()}
    torch.save({"config": asdict(config), "model": state}, options.checkpoint)
    print(
        f"{options.checkpoint} can be given to demos.training.train as --start, with {options.model} as its tokenizer"
    )


if __name__ == "__main__":
    main()
