"""The KV cache: shared by sequences, full, rolled back, and of models that cannot go back."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np
import pytest

from demos.training import export_hf, export_onnx
from model_runtime.core import Cancellation, Chunk, Logits
from model_runtime.errors import BadInputError, Cancelled, ContextOverflowError, KVMismatchError, UnsupportedError
from model_runtime.llama import LlamaEngine
from model_runtime.onnx import OnnxEngine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.model_runtime.llama.conftest import Kind

TEXT = [int(token) for token in np.random.default_rng(1).integers(0, 256, 700)]
# KV is kept in float16, and how tokens share a pass changes the order of sums.
CLOSE = {"atol": 0.08, "rtol": 0}


@pytest.fixture(scope="module")
def load(gguf_file: Callable[[Kind], Path]) -> Iterator[Callable[..., LlamaEngine]]:
    engines: list[LlamaEngine] = []

    def open_engine(kind: Kind, **options: object) -> LlamaEngine:
        engines.append(LlamaEngine.load(gguf_file(kind), threads=1, **options))
        return engines[-1]

    yield open_engine
    for engine in engines:
        engine.shutdown()


def last_logits(engine: LlamaEngine, sequence: int, tokens: list[int]) -> np.ndarray:
    return engine.forward([Chunk(sequence, tokens)])[0].logits[0]


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gpt2", "bloom", "gemma3", "mamba"])
def test_every_kind_of_memory_keeps_the_contract(load: Callable[..., LlamaEngine], kind: Kind) -> None:
    engine = load(kind, context_length=512, max_sequences=4)
    whole, parts = engine.open(), engine.open()
    expected = last_logits(engine, whole, TEXT[:300])
    engine.forward([Chunk(parts, TEXT[:120], Logits.NONE)])
    forked = engine.fork(parts)
    engine.forward([Chunk(parts, TEXT[120:299], Logits.NONE), Chunk(forked, [1, 2, 3], Logits.NONE)])
    np.testing.assert_allclose(last_logits(engine, parts, TEXT[299:300]), expected, **CLOSE)
    imported = engine.import_kv(engine.export_kv(parts))
    assert engine.length(imported) == 300
    pair = engine.forward([Chunk(parts, [9]), Chunk(imported, [9])])
    np.testing.assert_allclose(pair[0].logits, pair[1].logits, **CLOSE)
    np.testing.assert_allclose(last_logits(engine, whole, [9]), pair[0].logits[0], **CLOSE)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "bloom", "gemma3"])
def test_truncation_equals_never_having_gone_on(load: Callable[..., LlamaEngine], kind: Kind) -> None:
    engine = load(kind, context_length=512, max_sequences=2)
    straight, returned = engine.open(), engine.open()
    expected = last_logits(engine, straight, TEXT[:101])
    engine.forward([Chunk(returned, TEXT[:300], Logits.NONE)])
    engine.truncate(returned, 100)
    np.testing.assert_allclose(last_logits(engine, returned, TEXT[100:101]), expected, **CLOSE)


def test_a_recurrent_model_says_that_it_cannot_go_back(load: Callable[..., LlamaEngine]) -> None:
    engine = load("mamba", context_length=512, max_sequences=2)
    straight, sequence = engine.open(), engine.open()
    expected = last_logits(engine, straight, TEXT[:21])
    engine.forward([Chunk(sequence, TEXT[:20], Logits.NONE)])
    with pytest.raises(UnsupportedError, match="cannot go back from 20 to 19"):
        engine.truncate(sequence, 19)
    assert engine.length(sequence) == 20
    np.testing.assert_allclose(last_logits(engine, sequence, TEXT[20:21]), expected, **CLOSE)
    engine.truncate(sequence, 0)
    np.testing.assert_allclose(last_logits(engine, sequence, TEXT[:21]), expected, **CLOSE)


def test_a_window_that_has_moved_on_is_not_gone_back_to(load: Callable[..., LlamaEngine]) -> None:
    """Where the cache comes round to its beginning, llama.cpp writes over keys that have left the window of 64."""
    engine = load("gemma3", context_length=512, max_sequences=2, kv_tokens=512)
    other, sequence = engine.open(), engine.open()
    expected = last_logits(engine, other, TEXT[:181])
    engine.forward([Chunk(sequence, TEXT[:200], Logits.NONE)])
    engine.truncate(other, 0)
    engine.forward([Chunk(sequence, TEXT[200:480], Logits.NONE)])
    with pytest.raises(UnsupportedError, match="cannot go back from 480 to 60"):
        engine.truncate(sequence, 60)
    assert engine.length(sequence) == 480
    engine.truncate(sequence, 180)
    np.testing.assert_allclose(last_logits(engine, sequence, TEXT[180:181]), expected, **CLOSE)


def test_a_pass_longer_than_a_batch_is_split(load: Callable[..., LlamaEngine]) -> None:
    engine = load("llama", context_length=2048, max_sequences=4, kv_tokens=4096)
    long = (TEXT * 2)[:1100]
    first, second, third = (engine.open() for _ in range(3))
    whole = engine.forward([Chunk(first, long, Logits.ALL), Chunk(second, long, Logits.LAST)])
    for start in range(0, 1100, 400):
        part = engine.forward([Chunk(third, long[start : start + 400], Logits.ALL)])[0].logits
        np.testing.assert_allclose(whole[0].logits[start : start + 400], part, **CLOSE)
    assert whole[0].logits.shape == (1100, engine.info.vocabulary_size)
    np.testing.assert_allclose(whole[1].logits[0], whole[0].logits[-1], **CLOSE)


@pytest.mark.parametrize("kind", ["llama", "gemma3"])
def test_a_full_cache_loses_nothing(load: Callable[..., LlamaEngine], kind: Kind) -> None:
    engine = load(kind, context_length=512, max_sequences=3, kv_tokens=512)
    reference = load(kind, context_length=512, max_sequences=1)
    one, two = engine.open(), engine.open()
    engine.forward([Chunk(one, TEXT[:300], Logits.NONE), Chunk(two, TEXT[:150], Logits.NONE)])
    with pytest.raises(ContextOverflowError, match="kv_tokens"):
        engine.forward([Chunk(one, TEXT[300:340]), Chunk(two, TEXT[150:190])])
    assert (engine.length(one), engine.length(two)) == (300, 150)
    with pytest.raises(ContextOverflowError):
        engine.import_kv(engine.export_kv(one))
    expected = last_logits(reference, reference.open(), TEXT[:301])
    np.testing.assert_allclose(last_logits(engine, one, TEXT[300:301]), expected, **CLOSE)
    engine.close(two)
    assert engine.forward([Chunk(one, TEXT[301:500])])[0].logits.shape[0] == 1


def test_full_precision_agrees_with_onnx_runtime(
    load: Callable[..., LlamaEngine], gguf_file: Callable[[Kind], Path]
) -> None:
    """In f16 the same comparison is off by hundredths."""
    path = gguf_file("qwen2").with_name("model.onnx")
    export_onnx.export_dynamic(*export_hf.load(path.parent), path)
    exact = load("qwen2", context_length=512, max_sequences=1, flash_attention=False, kv_precision="f32")
    [result] = exact.forward([Chunk(exact.open(), TEXT[:400], Logits.ALL)])
    with OnnxEngine.load(path, threads=1) as onnx:
        [expected] = onnx.forward([Chunk(onnx.open(), TEXT[:400], Logits.ALL)])
    np.testing.assert_allclose(result.logits, expected.logits, atol=5e-3, rtol=0)


def test_forks_share_what_they_have_in_common(load: Callable[..., LlamaEngine]) -> None:
    engine = load("llama", context_length=512, max_sequences=8, kv_tokens=512)
    prefix = engine.open()
    engine.forward([Chunk(prefix, TEXT[:400], Logits.NONE)])
    forks = [engine.fork(prefix) for _ in range(6)]
    engine.forward([Chunk(fork, TEXT[:10], Logits.NONE) for fork in forks])
    assert {engine.length(fork) for fork in forks} == {410}
    # The last owner of shared cells still has them when all others are closed.
    expected = last_logits(engine, forks[0], [3])
    for closed in (prefix, *forks[1:5]):
        engine.close(closed)
    np.testing.assert_allclose(last_logits(engine, forks[5], [3]), expected, **CLOSE)


def test_a_pass_aborted_in_its_second_batch_is_undone(
    load: Callable[..., LlamaEngine], caplog: pytest.LogCaptureFixture
) -> None:
    engine = load("llama", context_length=2048, max_sequences=2)
    sequence, other = engine.open(), engine.open()
    engine.forward([Chunk(sequence, TEXT[:50], Logits.NONE)])

    class AtSecondBatch(Cancellation):
        """`on_cancel` is called once for each batch of llama.cpp."""

        calls = 0

        def on_cancel(self, callback: Callable[[], None]) -> Callable[[], None]:
            forget = super().on_cancel(callback)
            self.calls += 1
            if self.calls == 2:
                self.cancel()
            return forget

    cancellation = AtSecondBatch()
    with pytest.raises(Cancelled):
        engine.forward([Chunk(other, (TEXT * 3)[:1500]), Chunk(sequence, (TEXT * 3)[:1500])], cancellation)
    assert cancellation.calls == 2
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []  # a wish is no error
    assert (engine.length(sequence), engine.length(other)) == (50, 0)
    expected = last_logits(engine, other, TEXT[:51])
    np.testing.assert_allclose(last_logits(engine, sequence, TEXT[50:51]), expected, **CLOSE)


def test_kv_moves_only_between_equal_layouts(load: Callable[..., LlamaEngine]) -> None:
    engine = load("llama", context_length=128, max_sequences=2)
    sequence = engine.open()
    engine.forward([Chunk(sequence, TEXT[:40], Logits.NONE)])
    data = engine.export_kv(sequence)
    with pytest.raises(KVMismatchError, match="model fingerprint"):
        load("gpt2", context_length=128, max_sequences=1).import_kv(data)
    with pytest.raises(KVMismatchError, match="layout"):
        load("llama", context_length=128, max_sequences=1, flash_attention=False).import_kv(data)
    with pytest.raises(KVMismatchError, match="checksum"):
        engine.import_kv(data[:-1] + bytes([data[-1] ^ 1]))
    short = load("llama", context_length=32, max_sequences=2)
    with pytest.raises(ContextOverflowError):
        short.import_kv(data)
    engine.open()
    with pytest.raises(BadInputError, match="at most 2"):
        engine.import_kv(data)


def test_an_empty_sequence_can_be_exported(load: Callable[..., LlamaEngine]) -> None:
    engine = load("llama", context_length=128, max_sequences=2)
    imported = engine.import_kv(engine.export_kv(engine.open()))
    assert engine.length(imported) == 0
    assert last_logits(engine, imported, [1]).shape == (engine.info.vocabulary_size,)


def test_closed_sequences_leave_nothing_behind(load: Callable[..., LlamaEngine]) -> None:
    """512 cells would be full after ten if closing left any of them taken."""
    engine = load("llama", context_length=128, max_sequences=3, kv_tokens=512)
    for _ in range(40):
        sequence = engine.open()
        engine.forward([Chunk(sequence, TEXT[:50], Logits.NONE)])
        fork = engine.fork(sequence)
        engine.close(sequence)
        engine.close(fork)
    sequence = engine.open()
    assert engine.forward([Chunk(sequence, TEXT[:128])])[0].logits.shape[0] == 1
