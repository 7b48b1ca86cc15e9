"""The big random model on llama.cpp, set up so that answers have the length that a benchmark wants."""

from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.big_model import big_gguf
from model_runtime.core import Chunk, Engine, Logits, Tokenizer
from model_runtime.llama.engine import LlamaEngine

if TYPE_CHECKING:
    from collections.abc import Sequence

    from model_runtime.core import Message
    from model_runtime.tools import Tool

CACHE = Path(__file__).parent.parent / "out" / "benchmarks"
_TOKENIZER = Path(__file__).parent.parent / "demos" / "models" / "device"


class _Endless(Tokenizer):
    """A tokenizer in which nothing ends an answer: random weights would, anywhere."""

    def __init__(self, inner: Tokenizer) -> None:
        self._inner = inner

    @property
    def vocabulary_size(self) -> int:
        return self._inner.vocabulary_size

    @property
    def eos_ids(self) -> frozenset[int]:
        return frozenset()

    @property
    def fingerprint(self) -> str:
        return self._inner.fingerprint

    @property
    def template_fingerprint(self) -> str:
        return self._inner.template_fingerprint

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        return self._inner.encode(text, special=special)

    def token_bytes(self, token: int) -> bytes:
        return self._inner.token_bytes(token)

    def render_chat(
        self, messages: Sequence[Message], *, add_generation_prompt: bool = True, tools: Sequence[Tool] = ()
    ) -> list[int]:
        return self._inner.render_chat(messages, add_generation_prompt=add_generation_prompt, tools=tools)


def big_engine(sequences: int, kv_tokens: int, threads: int | None = None) -> Engine:
    """107 M parameters in F16 for `sequences` at a time."""
    path = big_gguf(_TOKENIZER, CACHE)
    engine = LlamaEngine.load(path, context_length=4096, max_sequences=sequences, kv_tokens=kv_tokens, threads=threads)
    engine.tokenizer = _Endless(engine.tokenizer)
    return engine


def random_prompt(length: int, dice: random.Random) -> tuple[int, ...]:
    """Ids of plain tokens; no two prompts begin alike."""
    return tuple(dice.randrange(3, 250) for _ in range(length))


def prefill(engine: Engine, prompts: Sequence[Sequence[int]], pass_tokens: int) -> list[int]:
    """New sequences that hold these prompts, one after the other, in passes of `pass_tokens`."""
    sequences = []
    for prompt in prompts:
        sequences.append(engine.open())
        for start in range(0, len(prompt), pass_tokens):
            part = prompt[start : start + pass_tokens]
            logits = Logits.LAST if start + pass_tokens >= len(prompt) else Logits.NONE
            engine.forward([Chunk(sequences[-1], part, logits)])
    return sequences


def decode(engine: Engine, sequences: Sequence[int], passes: int) -> None:
    """The bare loop: every sequence gets the likeliest token of its logits, pass after pass."""
    tokens = [1] * len(sequences)
    for _ in range(passes):
        results = engine.forward([Chunk(s, (token,)) for s, token in zip(sequences, tokens, strict=True)])
        tokens = [int(result.logits[-1].argmax()) for result in results]
