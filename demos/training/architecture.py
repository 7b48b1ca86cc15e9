"""What the bundled models are, without torch: a decoder in Llama's or Qwen2's layout, as plain arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

Weights = dict[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class DecoderConfig:
    """Qwen2 is Llama with biases on queries, keys and values. Attention is as wide as the model."""

    vocabulary: int
    width: int
    layers: int
    heads: int
    kv_heads: int
    feed_forward: int
    context: int = 4608
    architecture: Literal["llama", "qwen2"] = "qwen2"
    tied: bool = True
    #: So large that two thirds of a head hardly turn within the context: they compare words at any distance.
    rope_theta: float = 1e12
    norm_epsilon: float = 1e-6

    def __post_init__(self) -> None:
        if self.width % self.heads or self.heads % self.kv_heads:
            raise ValueError("heads must divide width, and kv_heads must divide heads")
        if self.head_dim % 2:
            raise ValueError("rotary embeddings need an even head_dim")

    @property
    def head_dim(self) -> int:
        return self.width // self.heads

    @property
    def kv_width(self) -> int:
        return self.kv_heads * self.head_dim

    @property
    def biased(self) -> bool:
        return self.architecture == "qwen2"


def shapes(config: DecoderConfig) -> dict[str, tuple[int, ...]]:
    """Every tensor's name (as Hugging Face writes it) and shape; a projection is (outputs, inputs)."""
    width, kv, inner = config.width, config.kv_width, config.feed_forward
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (config.vocabulary, width)}
    for layer in range(config.layers):
        prefix = f"model.layers.{layer}."
        found[prefix + "input_layernorm.weight"] = (width,)
        for name, outputs in (("q", width), ("k", kv), ("v", kv)):
            found[f"{prefix}self_attn.{name}_proj.weight"] = (outputs, width)
            if config.biased:
                found[f"{prefix}self_attn.{name}_proj.bias"] = (outputs,)
        found[prefix + "self_attn.o_proj.weight"] = (width, width)
        found[prefix + "post_attention_layernorm.weight"] = (width,)
        found[prefix + "mlp.gate_proj.weight"] = (inner, width)
        found[prefix + "mlp.up_proj.weight"] = (inner, width)
        found[prefix + "mlp.down_proj.weight"] = (width, inner)
    found["model.norm.weight"] = (width,)
    if not config.tied:
        found["lm_head.weight"] = (config.vocabulary, width)
    return found


def parameters(config: DecoderConfig) -> int:
    return sum(int(np.prod(shape)) for shape in shapes(config).values())


def random_weights(config: DecoderConfig, seed: int) -> Weights:
    """A model that says nothing sensible, with attention and logits lively enough to compare engines by."""
    rng = np.random.default_rng(seed)
    weights: Weights = {}
    for name, shape in shapes(config).items():
        if "norm" in name:
            values = 1.0 + 0.1 * rng.standard_normal(shape)
        elif name.endswith("bias"):
            values = 0.2 * rng.standard_normal(shape)
        elif "embed_tokens" in name:
            values = 0.25 * rng.standard_normal(shape)
        else:
            values = rng.standard_normal(shape) * (1.5 / np.sqrt(shape[-1]))
        # Through fp16, so that every format can hold exactly these numbers.
        weights[name] = values.astype(np.float16).astype(np.float32)
    return weights
