"""Record what PyTorch computes, for tests that have none: logits and attention rows of a bundled model in float32.

python -m demos.training.reference MODEL_DIR FILE.npz
"""

from __future__ import annotations

import argparse
from pathlib import Path
from random import Random

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer

from demos.training import export_hf
from demos.training.chat import CHATML
from demos.training.logbook import make_document, make_questions, user_message
from demos.training.model import rotary, rotate

ROWS = 8


@torch.no_grad()
def forward(folder: Path, ids: list[int], keep: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """The last row's logits, and (layers, heads, rows, keys): the last rows' attention at the layers to keep."""
    config, arrays = export_hf.load(folder)
    weights = {name: torch.from_numpy(values) for name, values in arrays.items()}
    length = len(ids)
    cos, sin = rotary(torch.arange(length)[None], config)
    order = torch.arange(length)
    causal = torch.where(order[:, None] >= order[None, :], 0.0, float("-inf"))
    x = weights["model.embed_tokens.weight"][torch.tensor(ids)][None]
    kept = []
    for layer in range(config.layers):
        prefix = f"model.layers.{layer}."

        def linear(y: torch.Tensor, name: str, prefix: str = prefix) -> torch.Tensor:
            return F.linear(y, weights[f"{prefix}{name}.weight"], weights.get(f"{prefix}{name}.bias"))

        def norm(y: torch.Tensor, name: str, prefix: str = prefix) -> torch.Tensor:
            return F.rms_norm(y, (config.width,), weights[f"{prefix}{name}.weight"], config.norm_epsilon)

        normed = norm(x, "input_layernorm")
        q, k, v = (
            linear(normed, f"self_attn.{name}_proj").view(1, length, -1, config.head_dim).transpose(1, 2)
            for name in "qkv"
        )
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        groups = config.heads // config.kv_heads
        k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
        attention = (q @ k.transpose(-1, -2) * config.head_dim**-0.5 + causal).softmax(-1)
        if layer in keep:
            kept.append(attention[0, :, -ROWS:])
        x = x + linear((attention @ v).transpose(1, 2).flatten(2), "self_attn.o_proj")
        normed = norm(x, "post_attention_layernorm")
        x = x + linear(F.silu(linear(normed, "mlp.gate_proj")) * linear(normed, "mlp.up_proj"), "mlp.down_proj")
    hidden = F.rms_norm(x[0, -1], (config.width,), weights["model.norm.weight"], config.norm_epsilon)
    head = weights["model.embed_tokens.weight" if config.tied else "lm_head.weight"]
    return F.linear(hidden, head), torch.stack(kept)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("file", type=Path)
    options = parser.parse_args()
    rng = Random(11)
    document = make_document(rng, 170, "eval")
    (question,) = make_questions(rng, document, 1, {"lookup": 1.0})
    content = user_message(document, question.text)
    prompt = CHATML.open("user") + content + CHATML.end + CHATML.separator + CHATML.open("assistant")
    ids = Tokenizer.from_file(str(options.model / "tokenizer.json")).encode(prompt, add_special_tokens=False).ids
    layers = [1, export_hf.load(options.model)[0].layers - 1]
    logits, attention = forward(options.model, ids, layers)
    np.savez_compressed(
        options.file, ids=np.array(ids, np.int64), layers=np.array(layers), logits=logits.numpy(),
        attention=attention.numpy(),
    )  # fmt: skip
    print(f"{len(ids)} tokens, attention {tuple(attention.shape)}, {options.file.stat().st_size} bytes")


if __name__ == "__main__":
    main()
