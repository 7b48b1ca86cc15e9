"""Tiny models of random weights as GGUF files: the bundled models' layouts, and architectures that are unlike them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pytest

from demos.training import export_gguf, export_hf
from demos.training.architecture import DecoderConfig, random_weights

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytest.importorskip("llama_cpp", reason="pip install pd-device[llama]")

Kind = Literal["llama", "qwen2", "gpt2", "bloom", "gemma3", "mamba", "sentencepiece"]

CONTEXT, LAYERS, HEADS, WIDTH, WINDOW = 2048, 3, 4, 64, 64
SPECIAL = ["<|im_start|>", "<|im_end|>", "<|pad|>"]
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="session")
def gguf_file(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Kind], Path]:
    """The path of a model of that kind, made once."""
    made: dict[str, Path] = {}

    def make(kind: Kind) -> Path:
        if kind not in made:
            folder = tmp_path_factory.mktemp(kind)
            made[kind] = folder / "model.gguf"
            _WRITERS[kind](made[kind])
        return made[kind]

    return make


def _write_decoder(path: Path, architecture: Literal["llama", "qwen2"]) -> None:
    config = DecoderConfig(
        vocabulary=264,
        width=WIDTH,
        layers=LAYERS,
        heads=HEADS,
        kv_heads=2,
        feed_forward=96,
        context=CONTEXT,
        architecture=architecture,
        rope_theta=1e4,
    )
    _write_tokenizer(path.parent)
    export_hf.export(config, random_weights(config, seed=3), path.parent, path.parent)
    export_gguf.export(*export_hf.load(path.parent), path.parent, path)


def _write_tokenizer(folder: Path) -> None:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    pieces = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "th", "the"]
    merges = [("t", "h"), ("th", "e")]
    tokenizer = Tokenizer(models.BPE({piece: index for index, piece in enumerate(pieces)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in SPECIAL])
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"eos_token": "<|im_end|>", "pad_token": "<|pad|>", "chat_template": TEMPLATE}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


class _Gguf:
    """Writes one file. Matrices are random, and small enough for lively but tame attention."""

    def __init__(self, path: Path, architecture: str, *, layers: int = LAYERS) -> None:
        import gguf

        self.writer = gguf.GGUFWriter(str(path), architecture)
        self._rng = np.random.default_rng(5)
        self.writer.add_name(architecture)
        self.writer.add_context_length(CONTEXT)
        self.writer.add_embedding_length(WIDTH)
        self.writer.add_block_count(layers)
        self.writer.add_layer_norm_rms_eps(1e-6)

    def attention(self, kv_heads: int, feed_forward: int) -> None:
        self.writer.add_head_count(HEADS)
        self.writer.add_head_count_kv(kv_heads)
        self.writer.add_feed_forward_length(feed_forward)

    def bytes_vocabulary(self) -> int:
        from gguf import TokenType
        from tokenizers import pre_tokenizers

        letters = sorted(pre_tokenizers.ByteLevel.alphabet())
        self.writer.add_tokenizer_model("gpt2")
        self.writer.add_tokenizer_pre("gpt-2")
        self.writer.add_token_list([*letters, "th", *SPECIAL])
        self.writer.add_token_types([TokenType.NORMAL] * 257 + [TokenType.CONTROL] * 3)
        self.writer.add_token_merges(["t h"])
        self.writer.add_eos_token_id(258)
        return 260

    def pieces_vocabulary(self) -> int:
        """As SentencePiece models have it: unknown, two controls, 256 bytes, then pieces with `▁` for a space."""
        from gguf import TokenType

        pieces = ["▁", "h", "e", "l", "o", "▁h", "▁he", "ll", "▁hell", "▁hello", "he", "hell", "hello", "é", "▁▁"]
        tokens = ["<unk>", "<s>", "</s>", *(f"<0x{value:02X}>" for value in range(256)), *pieces]
        kinds = [TokenType.UNKNOWN, TokenType.CONTROL, TokenType.CONTROL, *[TokenType.BYTE] * 256]
        self.writer.add_tokenizer_model("llama")
        self.writer.add_token_list(tokens)
        self.writer.add_token_types([*kinds, *[TokenType.NORMAL] * len(pieces)])
        self.writer.add_token_scores([0.0] * 259 + [float(len(piece)) for piece in pieces])
        self.writer.add_bos_token_id(1)
        self.writer.add_eos_token_id(2)
        self.writer.add_unk_token_id(0)
        self.writer.add_chat_template(
            "{{ bos_token }}{% for m in messages %}{{ m['content'] }}{{ eos_token }}{% endfor %}"
        )
        return len(tokens)

    def matrix(self, name: str, *shape: int) -> None:
        values = self._rng.standard_normal(shape) * (1.5 / np.sqrt(shape[-1]))
        self.writer.add_tensor(f"{name}.weight", values.astype(np.float32))

    def norm(self, name: str, width: int = WIDTH, *, bias: bool = False) -> None:
        self.writer.add_tensor(f"{name}.weight", np.ones(width, dtype=np.float32))
        if bias:
            self.bias(name, width)

    def bias(self, name: str, width: int) -> None:
        self.writer.add_tensor(f"{name}.bias", np.zeros(width, dtype=np.float32))

    def array(self, name: str, values: Any) -> None:
        self.writer.add_tensor(name, np.asarray(values, dtype=np.float32))

    def done(self) -> None:
        self.writer.write_header_to_file()
        self.writer.write_kv_data_to_file()
        self.writer.write_tensors_to_file()
        self.writer.close()


def _write_sentencepiece(path: Path) -> None:
    file = _Gguf(path, "llama", layers=1)
    file.attention(kv_heads=2, feed_forward=96)
    file.matrix("token_embd", file.pieces_vocabulary(), WIDTH)
    file.norm("output_norm")
    file.norm("blk.0.attn_norm")
    for name, rows in (("q", WIDTH), ("k", WIDTH // 2), ("v", WIDTH // 2), ("output", WIDTH)):
        file.matrix(f"blk.0.attn_{name}", rows, WIDTH)
    file.norm("blk.0.ffn_norm")
    file.matrix("blk.0.ffn_gate", 96, WIDTH)
    file.matrix("blk.0.ffn_up", 96, WIDTH)
    file.matrix("blk.0.ffn_down", WIDTH, 96)
    file.done()


def _write_layernorm(path: Path, architecture: Literal["gpt2", "bloom"]) -> None:
    """GPT-2 has learned positions; BLOOM has none, and biases its scores by distance (ALiBi)."""
    file = _Gguf(path, architecture)
    file.attention(kv_heads=HEADS, feed_forward=4 * WIDTH)
    file.writer.add_layer_norm_eps(1e-5)
    file.matrix("token_embd", file.bytes_vocabulary(), WIDTH)
    if architecture == "gpt2":
        file.matrix("position_embd", CONTEXT, WIDTH)
    else:
        file.norm("token_embd_norm", bias=True)
    file.norm("output_norm", bias=True)
    for layer in range(LAYERS):
        prefix = f"blk.{layer}."
        file.norm(prefix + "attn_norm", bias=True)
        file.norm(prefix + "ffn_norm", bias=True)
        for name, rows, columns in (
            ("attn_qkv", 3 * WIDTH, WIDTH),
            ("attn_output", WIDTH, WIDTH),
            ("ffn_up", 4 * WIDTH, WIDTH),
            ("ffn_down", WIDTH, 4 * WIDTH),
        ):
            file.matrix(prefix + name, rows, columns)
            file.bias(prefix + name, rows)
    file.done()


def _write_gemma3(path: Path) -> None:
    """Five of six layers see a window of 64 tokens only."""
    file = _Gguf(path, "gemma3", layers=6)
    file.attention(kv_heads=2, feed_forward=96)
    file.writer.add_sliding_window(WINDOW)
    file.writer.add_key_length(16)
    file.writer.add_value_length(16)
    file.matrix("token_embd", file.bytes_vocabulary(), WIDTH)
    file.norm("output_norm")
    for layer in range(6):
        prefix = f"blk.{layer}."
        for name in ("attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm"):
            file.norm(prefix + name)
        for name in ("attn_q_norm", "attn_k_norm"):
            file.norm(prefix + name, 16)
        for name, rows in (("q", 64), ("k", 32), ("v", 32), ("output", WIDTH)):
            file.matrix(f"{prefix}attn_{name}", rows, 64)
        file.matrix(prefix + "ffn_gate", 96, WIDTH)
        file.matrix(prefix + "ffn_up", 96, WIDTH)
        file.matrix(prefix + "ffn_down", WIDTH, 96)
    file.done()


def _write_mamba(path: Path) -> None:
    """No attention at all: one running state for each sequence."""
    file = _Gguf(path, "mamba")
    file.attention(kv_heads=0, feed_forward=0)
    inner, state, rank, kernel = 2 * WIDTH, 8, 4, 4
    file.writer.add_ssm_conv_kernel(kernel)
    file.writer.add_ssm_inner_size(inner)
    file.writer.add_ssm_state_size(state)
    file.writer.add_ssm_time_step_rank(rank)
    file.matrix("token_embd", file.bytes_vocabulary(), WIDTH)
    file.norm("output_norm")
    for layer in range(LAYERS):
        prefix = f"blk.{layer}."
        file.norm(prefix + "attn_norm")
        file.matrix(prefix + "ssm_in", 2 * inner, WIDTH)
        file.matrix(prefix + "ssm_conv1d", inner, kernel)
        file.bias(prefix + "ssm_conv1d", inner)
        file.matrix(prefix + "ssm_x", rank + 2 * state, inner)
        file.matrix(prefix + "ssm_dt", inner, rank)
        file.bias(prefix + "ssm_dt", inner)
        file.array(prefix + "ssm_a", -np.tile(np.arange(1, state + 1), (inner, 1)))
        file.array(prefix + "ssm_d", np.ones(inner))
        file.matrix(prefix + "ssm_out", WIDTH, inner)
    file.done()


_WRITERS: dict[str, Callable[[Path], None]] = {
    "llama": lambda path: _write_decoder(path, "llama"),
    "qwen2": lambda path: _write_decoder(path, "qwen2"),
    "gpt2": lambda path: _write_layernorm(path, "gpt2"),
    "bloom": lambda path: _write_layernorm(path, "bloom"),
    "gemma3": _write_gemma3,
    "mamba": _write_mamba,
    "sentencepiece": _write_sentencepiece,
}
