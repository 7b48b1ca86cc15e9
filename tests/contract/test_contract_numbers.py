"""What engines compute: against a decoder written in NumPy, however the tokens are cut into chunks."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_runtime.core import AttentionTap, Chunk, Logits

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.contract.conftest import Case

SOME = [int(token) for token in np.random.default_rng(3).integers(0, 258, 61)]


def test_logits_of_all_positions(case: Case) -> None:
    with case.sequences() as [sequence]:
        [result] = case.engine.forward([Chunk(sequence, SOME, Logits.ALL)])
        assert case.engine.length(sequence) == len(SOME)
    assert result.logits.shape == (len(SOME), case.engine.info.vocabulary_size)
    assert result.logits.dtype == np.float32
    assert result.attention is None
    if case.exact is not None:
        np.testing.assert_allclose(result.logits, case.exact.run(SOME)[0], atol=case.tolerance, rtol=0)


def test_only_the_logits_asked_for(case: Case) -> None:
    with case.sequences(2) as [whole, parts]:
        [all_of_them] = case.engine.forward([Chunk(whole, SOME, Logits.ALL)])
        [nothing] = case.engine.forward([Chunk(parts, SOME[:30], Logits.NONE)])
        [last] = case.engine.forward([Chunk(parts, SOME[30:50])])
        [tail] = case.engine.forward([Chunk(parts, SOME[50:], Logits.ALL)])
    assert nothing.logits.shape == (0, case.engine.info.vocabulary_size)
    np.testing.assert_allclose(last.logits, all_of_them.logits[49:50], atol=2 * case.tolerance, rtol=0)
    np.testing.assert_allclose(tail.logits, all_of_them.logits[50:], atol=2 * case.tolerance, rtol=0)


def test_greedy_decoding_says_what_the_model_says(model_case: Case) -> None:
    case = model_case
    said: list[int] = []
    assert case.exact is not None
    with case.sequences() as [sequence]:
        [result] = case.engine.forward([Chunk(sequence, SOME[:20])])
        for _ in range(24):
            said.append(int(result.logits[0].argmax()))
            [result] = case.engine.forward([Chunk(sequence, said[-1:])])
    if not case.rounded:
        assert said == case.exact.greedy(SOME[:20], 24)
        return
    logits = case.exact.run(SOME[:20] + said)[0][19:-1]
    assert np.mean(logits.argmax(1) == said) >= 0.8
    assert (logits.max(1) - logits[np.arange(24), said] < case.tolerance).all()


def require_tap(case: Case) -> None:
    if not case.engine.info.capabilities.attention_tap:
        pytest.skip(f"{case.name} gives no attention: its capabilities say so")


def test_attention_of_the_last_rows(case: Case) -> None:
    require_tap(case)
    rows, layers = 17, (2, 0)
    with case.sequences() as [sequence]:
        case.engine.forward([Chunk(sequence, SOME[:40], Logits.NONE)])
        [result] = case.engine.forward([Chunk(sequence, SOME[40:], tap=AttentionTap(layers, rows))])
    attention = result.attention
    assert attention is not None
    assert attention.shape == (2, case.engine.info.heads, rows, len(SOME))
    assert attention.dtype == np.float32
    np.testing.assert_allclose(attention.sum(axis=-1), 1, atol=1e-3)
    future = np.arange(len(SOME)) > np.arange(len(SOME) - rows, len(SOME))[:, None]
    assert (attention[:, :, future] == 0).all()
    if case.exact is not None:
        exact = case.exact.run(SOME)[1][list(layers), :, -rows:]
        np.testing.assert_allclose(attention, exact, atol=1e-2)


def test_a_tap_changes_no_logits_and_is_as_short_as_the_chunk(case: Case) -> None:
    require_tap(case)
    with case.sequences(2) as [plain, tapped]:
        expected = case.engine.forward([Chunk(plain, SOME[:9])])
        [result] = case.engine.forward([Chunk(tapped, SOME[:9], tap=AttentionTap((0,), 50))])
        [after] = case.engine.forward([Chunk(tapped, SOME[9:10])])
        [same] = case.engine.forward([Chunk(plain, SOME[9:10])])
    assert result.attention is not None
    assert result.attention.shape[2:] == (9, 9)
    np.testing.assert_allclose(result.logits, expected[0].logits, atol=2 * case.tolerance + 1e-6, rtol=0)
    np.testing.assert_allclose(after.logits, same.logits, atol=2 * case.tolerance + 1e-6, rtol=0)


@settings(max_examples=10, deadline=None)
@given(cuts=st.sets(st.integers(1, len(SOME) - 1), max_size=6))
def test_chunked_prefill_equals_one_shot(case: Case, cuts: set[int]) -> None:
    edges = [0, *sorted(cuts), len(SOME)]
    with case.sequences(2) as [whole, parts]:
        [one_shot] = case.engine.forward([Chunk(whole, SOME, Logits.ALL)])
        pieces = [
            case.engine.forward([Chunk(parts, SOME[start:end], Logits.ALL)])[0].logits
            for start, end in itertools.pairwise(edges)
        ]
    np.testing.assert_allclose(np.concatenate(pieces), one_shot.logits, atol=2 * case.tolerance + 1e-6, rtol=0)


@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
def test_attention_is_the_same_in_all_engines(cases: Callable[[str], Case], architecture: str) -> None:
    seen = {}
    for kind in ("onnx", "onnx-fixed", "onnx-npu", "llama.cpp"):
        case = cases(f"{kind}/{architecture}")
        with case.sequences() as [sequence]:
            seen[kind] = case.engine.forward([Chunk(sequence, SOME, tap=AttentionTap((0, 1, 2), 32))])[0].attention
    np.testing.assert_allclose(seen["onnx-fixed"], seen["onnx"], atol=1e-5)
    np.testing.assert_allclose(seen["onnx-npu"], seen["onnx"], atol=1e-5)
    np.testing.assert_allclose(seen["llama.cpp"], seen["onnx"], atol=1e-2)


@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
def test_fixed_and_dynamic_graphs_say_the_same_to_the_end_of_the_context(
    cases: Callable[[str], Case], architecture: str
) -> None:
    said = {}
    for kind in ("onnx", "onnx-fixed", "onnx-npu"):
        case = cases(f"{kind}/{architecture}")
        tokens = list(SOME)
        with case.sequences() as [sequence]:
            [result] = case.engine.forward([Chunk(sequence, tokens)])
            while case.engine.length(sequence) < case.engine.info.context_length:
                tokens.append(int(result.logits[0].argmax()))
                [result] = case.engine.forward([Chunk(sequence, tokens[-1:])])
        said[kind] = tokens
    assert len(said["onnx"]) == 160
    assert said["onnx-fixed"] == said["onnx"]
    assert said["onnx-npu"] == said["onnx"]
