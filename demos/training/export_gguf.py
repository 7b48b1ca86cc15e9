"""Write a decoder as GGUF for llama.cpp, tokenizer and chat template included."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Literal

import numpy as np

from demos.training.export_hf import special_ids

if TYPE_CHECKING:
    from pathlib import Path

    from demos.training.architecture import DecoderConfig, Weights

_LAYER_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_OTHER_NAMES = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def export(
    config: DecoderConfig,
    weights: Weights,
    tokenizer_dir: Path,
    path: Path,
    precision: Literal["F32", "F16"] = "F32",
) -> None:
    """Norms and biases stay float32 in either precision, as llama.cpp expects them."""
    import gguf

    writer = gguf.GGUFWriter(str(path), config.architecture)
    writer.add_name(path.parent.name)
    writer.add_context_length(config.context)
    writer.add_embedding_length(config.width)
    writer.add_block_count(config.layers)
    writer.add_feed_forward_length(config.feed_forward)
    writer.add_head_count(config.heads)
    writer.add_head_count_kv(config.kv_heads)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_layer_norm_rms_eps(config.norm_epsilon)
    writer.add_vocab_size(config.vocabulary)
    half = precision == "F16"
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16 if half else gguf.LlamaFileType.ALL_F32)
    _add_tokenizer(writer, tokenizer_dir, config.vocabulary)
    for name, values in weights.items():
        tensor = _permuted(config, name, values)
        writer.add_tensor(_gguf_name(name), tensor.astype(np.float16 if half and tensor.ndim > 1 else np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _gguf_name(name: str) -> str:
    stem, _, kind = name.rpartition(".")
    if stem in _OTHER_NAMES:
        return f"{_OTHER_NAMES[stem]}.{kind}"
    layer, _, part = stem.removeprefix("model.layers.").partition(".")
    return f"blk.{layer}.{_LAYER_NAMES[part]}.{kind}"


def _permuted(config: DecoderConfig, name: str, values: np.ndarray) -> np.ndarray:
    """llama.cpp turns neighbouring pairs for Llama where Hugging Face turns halves; for Qwen2 both turn halves."""
    if config.architecture != "llama" or not ("q_proj" in name or "k_proj" in name):
        return values
    heads = config.heads if "q_proj" in name else config.kv_heads
    split = values.reshape(heads, 2, config.head_dim // 2, *values.shape[1:])
    return np.ascontiguousarray(split.swapaxes(1, 2)).reshape(values.shape)


def _add_tokenizer(writer, folder: Path, vocabulary: int) -> None:
    import gguf

    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    # Sizes may be rounded up for a model; what no token uses is named and never produced by text.
    tokens = [f"[unused{index}]" for index in range(vocabulary)]
    types = [gguf.TokenType.UNUSED] * vocabulary
    for token, index in tokenizer["model"]["vocab"].items():
        tokens[index], types[index] = token, gguf.TokenType.NORMAL
    for added in tokenizer["added_tokens"]:
        tokens[added["id"]] = added["content"]
        types[added["id"]] = gguf.TokenType.CONTROL if added["special"] else gguf.TokenType.USER_DEFINED
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in tokenizer["model"]["merges"]]
    end, padding = special_ids(folder)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("llama-bpe")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(merges)
    writer.add_eos_token_id(end)
    writer.add_pad_token_id(padding)
    # llama.cpp would make token 0 the beginning of every text.
    writer.add_bos_token_id(padding)
    writer.add_add_bos_token(False)
    writer.add_chat_template(settings["chat_template"])
