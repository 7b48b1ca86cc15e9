"""The decoder in PyTorch, for training only: one pass over a document and its questions."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from demos.training.architecture import DecoderConfig


def rotary(positions: Tensor, config: DecoderConfig) -> tuple[Tensor, Tensor]:
    half = torch.arange(0, config.head_dim, 2, dtype=torch.float32) / config.head_dim
    angles = positions[..., None].float() * (config.rope_theta**-half)
    angles = torch.cat((angles, angles), -1)[:, None]
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat((-second, first), -1) * sin


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Spelled out: on a CPU, with heads this narrow, compiled matrix products beat the fused kernel twofold."""
    scores = torch.matmul(q, k.transpose(-1, -2)).float() * q.shape[-1] ** -0.5 + mask
    return torch.matmul(scores.softmax(-1).to(v.dtype), v)


def read_document(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    length = q.shape[2]
    if length > 512:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)
    order = torch.arange(length)
    return attend(q, k, v, torch.where(order[:, None] >= order[None, :], 0.0, float("-inf")))


class Block(nn.Module):
    """Queries, keys and values in one product, gate and up in another: exporters split them again."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.attention_norm = nn.RMSNorm(width, eps=config.norm_epsilon)
        self.qkv = nn.Linear(width, width + 2 * config.kv_width, bias=config.biased)
        self.o = nn.Linear(width, width, bias=False)
        self.mlp_norm = nn.RMSNorm(width, eps=config.norm_epsilon)
        self.gate_up = nn.Linear(width, 2 * config.feed_forward, bias=False)
        self.down = nn.Linear(config.feed_forward, width, bias=False)

    def project(self, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        config = self.config
        rows, length, _ = x.shape
        heads = config.heads + 2 * config.kv_heads
        qkv = self.qkv(self.attention_norm(x)).view(rows, length, heads, config.head_dim).transpose(1, 2)
        turned = rotate(qkv[:, : config.heads + config.kv_heads], cos, sin)
        q, k = turned.split((config.heads, config.kv_heads), 1)
        return q, k, qkv[:, config.heads + config.kv_heads :]

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor, document: int, sharpness: Tensor) -> Tensor:
        """`mask` (B, 1, questions, total) is for the questions' rows; the document's rows are plainly causal."""
        q, k, v = self.project(x, cos, sin)
        groups = self.config.heads // self.config.kv_heads
        k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
        q, k = (q * sharpness).to(v.dtype), k.to(v.dtype)
        read = read_document(q[:, :, :document], k[:, :, :document], v[:, :, :document])
        asked = attend(q[:, :, document:], k, v, mask)
        mixed = torch.cat((read, asked), 2).transpose(1, 2).flatten(2)
        x = x + self.o(mixed)
        gate, up = self.gate_up(self.mlp_norm(x)).chunk(2, -1)
        return x + self.down(F.silu(gate) * up)


class Decoder(nn.Module):
    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.embed = nn.Embedding(config.vocabulary, config.width)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = nn.RMSNorm(config.width, eps=config.norm_epsilon)
        nn.init.normal_(self.embed.weight, std=config.width**-0.5)
        for block in self.blocks:
            for linear in (block.qkv, block.gate_up):
                nn.init.normal_(linear.weight, std=config.width**-0.5)
            nn.init.zeros_(block.qkv.bias)
            for linear in (block.o, block.down):
                nn.init.normal_(linear.weight, std=0.5 / math.sqrt(linear.in_features * config.layers))

    def hidden(
        self, ids: Tensor, positions: Tensor, mask: Tensor, document: int, sharpness: float = 1.0
    ) -> tuple[Tensor, list[Tensor]]:
        """What the logits are made of, and every block's output. `sharpness` scales all attention scores: trained with
        less than 1, a model keeps the margins that a longer document will need."""
        cos, sin = rotary(positions, self.config)
        outputs = [self.embed(ids)]
        sharp = torch.tensor(sharpness)
        for block in self.blocks:
            outputs.append(block(outputs[-1], cos, sin, mask, document, sharp))
        return self.norm(outputs[-1]), outputs[1:]

    def logits(self, hidden: Tensor) -> Tensor:
        return F.linear(hidden, self.embed.weight)


class Hints(nn.Module):
    """Early tasks for inner blocks, for training only: name a token's line, the last line like it, the answer's first.

    Both are steps that answers need, and neither is rewarded by answers alone before the other works.
    """

    LINE_AFTER, PREVIOUS_AFTER, FIRST_AFTER = 1, 2, 3

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.line = nn.Linear(config.width, config.width, bias=False)
        self.previous = nn.Linear(config.width, config.width, bias=False)
        self.first = nn.Linear(config.width, config.width, bias=False)

    def loss(self, outputs: list[Tensor], labels: list[Tensor], embed: Tensor) -> Tensor:
        total = embed.new_zeros(())
        tasks = ((self.line, self.LINE_AFTER), (self.previous, self.PREVIOUS_AFTER), (self.first, self.FIRST_AFTER))
        for (head, after), wanted in zip(tasks, labels, strict=True):
            rows, columns = torch.nonzero(wanted >= 0, as_tuple=True)
            if len(rows) == 0:
                continue
            states = F.rms_norm(outputs[after][rows, columns], embed.shape[1:])
            total = total + F.cross_entropy(F.linear(head(states), embed).float(), wanted[rows, columns])
        return total


def question_mask(document_length: Tensor, branch: Tensor, document: int) -> Tensor:
    """Additive: a question sees the document's real tokens and, causally, its own branch."""
    rows, questions = branch.shape
    real = torch.arange(document)[None, None] < document_length[:, None, None]
    order = torch.arange(questions)
    own = (branch[:, :, None] == branch[:, None, :]) & (order[:, None] >= order[None, :])
    allowed = torch.cat((real.expand(rows, questions, document), own), 2)
    return torch.where(allowed, 0.0, float("-inf"))[:, None]
