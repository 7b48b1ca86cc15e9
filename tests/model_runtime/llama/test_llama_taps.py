"""Attention taps: computed again from queries and cached keys, they are what llama.cpp itself computed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from model_runtime.core import AttentionTap, Cancellation, Chunk, Logits
from model_runtime.errors import BadInputError, Cancelled, UnsupportedError
from model_runtime.llama import LlamaEngine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.model_runtime.llama.conftest import Kind

TEXT = [int(token) for token in np.random.default_rng(2).integers(0, 256, 700)]
TAP = AttentionTap(layers=(2, 0), rows=6)
# Flash attention multiplies in float16.
CLOSE = {"atol": 1e-2, "rtol": 0}


@pytest.fixture(scope="module")
def load(gguf_file: Callable[[Kind], Path]) -> Iterator[Callable[..., LlamaEngine]]:
    engines: dict[tuple[Kind, bool], LlamaEngine] = {}

    def open_engine(kind: Kind, *, flash: bool) -> LlamaEngine:
        if (kind, flash) not in engines:
            engines[kind, flash] = LlamaEngine.load(
                gguf_file(kind),
                context_length=1024,
                max_sequences=4,
                threads=1,
                flash_attention=flash,
                tap_layers=(2, 0),
            )
        return engines[kind, flash]

    yield open_engine
    for engine in engines.values():
        engine.shutdown()


def attention(engine: LlamaEngine, sequence: int, tokens: list[int], tap: AttentionTap = TAP) -> np.ndarray:
    [result] = engine.forward([Chunk(sequence, tokens, Logits.NONE, tap)])
    assert result.attention is not None
    np.testing.assert_allclose(result.attention.sum(axis=-1), 1, atol=1e-3)
    return result.attention


def tapped_at_once(engine: LlamaEngine, tokens: list[int]) -> np.ndarray:
    sequence = engine.open()
    try:
        return attention(engine, sequence, tokens)
    finally:
        engine.close(sequence)


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gpt2"])
def test_flash_attention_gives_llama_cpps_own_softmax(load: Callable[..., LlamaEngine], kind: Kind) -> None:
    """Without flash attention the rows are read from `kq_soft_max`. 700 tokens are two graphs of llama.cpp, and with
    4 tokens in the second one the rows come from both."""
    for count in (700, 516):
        flash = tapped_at_once(load(kind, flash=True), TEXT[:count])
        own = tapped_at_once(load(kind, flash=False), TEXT[:count])
        assert flash.shape == (2, 4, 6, count)
        np.testing.assert_allclose(flash, own, **CLOSE)
        assert np.triu(flash[0, 0], count - 5).sum() == 0  # Row i sees no key after its own.
        assert own.max() > 0.05  # Not all alike, so that a wrong key or head would show.


@pytest.mark.parametrize("flash", [True, False])
def test_a_chunked_prefill_beside_others_sees_all_keys(load: Callable[..., LlamaEngine], flash: bool) -> None:
    """Other sequences come and go between the chunks, so that this one's keys lie scattered in the shared cache."""
    engine = load("llama", flash=flash)
    expected = tapped_at_once(engine, TEXT[:300])
    noise, sequence = engine.open(), engine.open()
    for start, end in ((0, 70), (70, 71), (71, 200)):
        engine.forward([Chunk(noise, TEXT[:40], Logits.NONE), Chunk(sequence, TEXT[start:end], Logits.NONE)])
        if start == 0:
            engine.truncate(noise, 11)
    other = engine.fork(noise)
    results = engine.forward(
        [
            Chunk(noise, TEXT[:20], Logits.NONE, AttentionTap((0,), 3)),
            Chunk(sequence, TEXT[200:300], Logits.NONE, TAP),
            Chunk(other, [5], Logits.LAST),
        ]
    )
    np.testing.assert_allclose(results[1].attention, expected, **CLOSE)
    assert results[0].attention is not None
    assert results[0].attention.shape == (1, 4, 3, engine.length(noise))
    assert results[2].attention is None
    for opened in (noise, sequence, other):
        engine.close(opened)


def test_taps_follow_forks_and_truncation(load: Callable[..., LlamaEngine]) -> None:
    engine = load("qwen2", flash=True)
    expected = tapped_at_once(engine, TEXT[:150])
    sequence = engine.open()
    engine.forward([Chunk(sequence, [*TEXT[:100], *TEXT[300:340]], Logits.NONE)])
    fork = engine.fork(sequence)
    engine.truncate(fork, 100)
    engine.close(sequence)
    np.testing.assert_allclose(attention(engine, fork, TEXT[100:150]), expected, **CLOSE)
    engine.close(fork)


def test_taps_survive_a_cancelled_pass(load: Callable[..., LlamaEngine]) -> None:
    engine = load("llama", flash=True)
    expected = tapped_at_once(engine, TEXT[:150])
    sequence = engine.open()
    engine.forward([Chunk(sequence, TEXT[:100], Logits.NONE)])

    class Inside(Cancellation):
        def on_cancel(self, callback: Callable[[], None]) -> Callable[[], None]:
            forget = super().on_cancel(callback)
            self.cancel()
            return forget

    with pytest.raises(Cancelled):
        engine.forward([Chunk(sequence, TEXT[200:300], Logits.NONE, TAP)], Inside())
    np.testing.assert_allclose(attention(engine, sequence, TEXT[100:150]), expected, **CLOSE)
    engine.close(sequence)


def test_decoding_can_be_tapped(load: Callable[..., LlamaEngine]) -> None:
    engine = load("llama", flash=True)
    sequence = engine.open()
    expected = tapped_at_once(engine, TEXT[:31])[:, :, -1:]
    engine.forward([Chunk(sequence, TEXT[:30], Logits.NONE)])
    np.testing.assert_allclose(attention(engine, sequence, TEXT[30:31]), expected, **CLOSE)
    engine.close(sequence)


def test_an_imported_sequence_cannot_be_tapped(load: Callable[..., LlamaEngine]) -> None:
    engine = load("llama", flash=True)
    sequence = engine.open()
    engine.forward([Chunk(sequence, TEXT[:30], Logits.NONE)])
    imported = engine.import_kv(engine.export_kv(sequence))
    with pytest.raises(UnsupportedError, match="was imported"):
        engine.forward([Chunk(imported, [1], tap=TAP)])
    assert engine.length(imported) == 30
    engine.truncate(imported, 0)
    np.testing.assert_allclose(attention(engine, imported, TEXT[:30]), tapped_at_once(engine, TEXT[:30]), **CLOSE)
    engine.close(sequence)
    engine.close(imported)


def test_what_was_not_declared_is_refused(load: Callable[..., LlamaEngine], gguf_file: Callable[[Kind], Path]) -> None:
    engine = load("llama", flash=True)
    sequence = engine.open()
    with pytest.raises(UnsupportedError, match=r"loaded with tap_layers=\(2, 0\)"):
        engine.forward([Chunk(sequence, [1], tap=AttentionTap((1,), 1))])
    assert engine.length(sequence) == 0
    engine.close(sequence)
    for layers in ((3,), (-1,), (1, 1)):
        with pytest.raises(BadInputError, match="tap_layers"):
            LlamaEngine.load(gguf_file("llama"), context_length=64, threads=1, tap_layers=layers)


@pytest.mark.parametrize(
    ("kind", "reason"), [("bloom", "flash_attention=False"), ("gemma3", "window"), ("mamba", "recurrent")]
)
def test_wrong_numbers_are_never_given(gguf_file: Callable[[Kind], Path], kind: Kind, reason: str) -> None:
    with pytest.raises(UnsupportedError, match=reason):
        LlamaEngine.load(gguf_file(kind), context_length=64, threads=1, tap_layers=(0,))


def test_biased_scores_are_read_without_flash_attention(load: Callable[..., LlamaEngine]) -> None:
    near = tapped_at_once(load("bloom", flash=False), TEXT[:400])
    # ALiBi: the first head of four loses 1/4 a token of distance, so it looks at the last few only.
    assert near[1, 0, -1, -40:].sum() > 0.99
