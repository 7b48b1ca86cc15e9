"""Sequences: many in one pass, cut back, forked, moved; each as if it were alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_runtime.core import Chunk, Logits
from model_runtime.errors import BadInputError, KVMismatchError, UnknownSequenceError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.contract.conftest import Case

TEXTS = [[int(t) for t in np.random.default_rng(seed).integers(0, 258, 40)] for seed in range(4)]


def alone(case: Case, tokens: list[int]) -> np.ndarray:
    """The last logits after these tokens: the exact ones, or those of a sequence of its own."""
    if case.exact is not None:
        return case.exact.run(tokens)[0][-1]
    with case.sequences() as [sequence]:
        return case.engine.forward([Chunk(sequence, tokens)])[0].logits[0]


def check(case: Case, logits: np.ndarray, tokens: list[int]) -> None:
    np.testing.assert_allclose(logits, alone(case, tokens), atol=case.tolerance + 1e-6, rtol=0)


def test_a_pass_over_prefill_and_decode_of_several_sequences(case: Case) -> None:
    lengths = (5, 40, 17, 1)
    with case.sequences(4) as sequences:
        for sequence, text, length in zip(sequences[:3], TEXTS, lengths, strict=False):
            case.engine.forward([Chunk(sequence, text[:length], Logits.NONE)])
        chunks = [Chunk(s, [7 + i]) for i, s in enumerate(sequences[:3])] + [Chunk(sequences[3], TEXTS[3])]
        results = case.engine.forward(chunks)
        for i in range(3):
            check(case, results[i].logits[0], [*TEXTS[i][: lengths[i]], 7 + i])
        check(case, results[3].logits[0], TEXTS[3])


def test_sequences_decode_together_step_after_step_while_others_come_and_go(case: Case) -> None:
    histories = [list(text[: 4 + 9 * i]) for i, text in enumerate(TEXTS)]
    with case.sequences(4) as sequences:
        for sequence, history in zip(sequences, histories, strict=True):
            case.engine.forward([Chunk(sequence, history)])
        for step, members in enumerate([(0, 1, 2), (0, 1, 2), (2, 1, 0, 3), (3, 1), (3, 1), (0, 1, 2, 3), (0,)]):
            for member in members:
                histories[member].append(100 + step)
            results = case.engine.forward([Chunk(sequences[member], [100 + step]) for member in members])
            for member, result in zip(members, results, strict=True):
                check(case, result.logits[0], histories[member])


def test_no_chunks_are_a_pass_without_results(case: Case) -> None:
    assert case.engine.forward([]) == []


def test_truncate_forgets_the_rest(case: Case) -> None:
    with case.sequences() as [sequence]:
        case.engine.forward([Chunk(sequence, TEXTS[0])])
        for length in (33, 33, 12, 0):
            case.engine.truncate(sequence, length)
            assert case.engine.length(sequence) == length
            [result] = case.engine.forward([Chunk(sequence, TEXTS[1][:3])])
            check(case, result.logits[0], TEXTS[0][:length] + TEXTS[1][:3])
            case.engine.truncate(sequence, length)


@pytest.mark.parametrize("length", [-1, 6])
def test_truncate_refuses_what_is_not_within_the_sequence(case: Case, length: int) -> None:
    with case.sequences() as [sequence]:
        case.engine.forward([Chunk(sequence, TEXTS[0][:5])])
        with pytest.raises(BadInputError, match="5"):
            case.engine.truncate(sequence, length)
        assert case.engine.length(sequence) == 5


def test_forks_do_not_change_each_other(case: Case) -> None:
    with case.sequences() as [parent]:
        case.engine.forward([Chunk(parent, TEXTS[0][:20])])
        child = case.engine.fork(parent)
        try:
            assert case.engine.length(child) == 20
            # The child first, in a pass of its own; then both together; then the parent is cut back.
            case.engine.forward([Chunk(child, TEXTS[1][:6])])
            results = case.engine.forward([Chunk(parent, [9]), Chunk(child, [8])])
            check(case, results[0].logits[0], [*TEXTS[0][:20], 9])
            check(case, results[1].logits[0], [*TEXTS[0][:20], *TEXTS[1][:6], 8])
            case.engine.truncate(parent, 3)
            [result] = case.engine.forward([Chunk(parent, TEXTS[2][:30])])
            check(case, result.logits[0], TEXTS[0][:3] + TEXTS[2][:30])
            [result] = case.engine.forward([Chunk(child, [5])])
            check(case, result.logits[0], [*TEXTS[0][:20], *TEXTS[1][:6], 8, 5])
        finally:
            case.engine.close(child)


def test_a_fork_outlives_its_parent(case: Case) -> None:
    parent = case.engine.open()
    case.engine.forward([Chunk(parent, TEXTS[0])])
    child = case.engine.fork(parent)
    case.engine.close(parent)
    with case.sequences() as [other]:
        case.engine.forward([Chunk(other, TEXTS[2])])
        [result] = case.engine.forward([Chunk(child, [5])])
    check(case, result.logits[0], [*TEXTS[0], 5])
    case.engine.close(child)


def test_exported_kv_goes_on_in_another_engine_of_the_same_model(case: Case) -> None:
    with case.sequences() as [sequence]:
        case.engine.forward([Chunk(sequence, TEXTS[0])])
        exported = case.engine.export_kv(sequence)
    with case.load() as other:
        assert other.info.model_fingerprint == case.engine.info.model_fingerprint
        imported = other.import_kv(exported)
        assert other.length(imported) == len(TEXTS[0])
        [result] = other.forward([Chunk(imported, [5])])
        check(case, result.logits[0], [*TEXTS[0], 5])
        other.truncate(imported, 10)
        [result] = other.forward([Chunk(imported, [5])])
        check(case, result.logits[0], [*TEXTS[0][:10], 5])


def test_kv_of_an_empty_sequence_moves_too(case: Case) -> None:
    with case.sequences() as [sequence]:
        imported = case.engine.import_kv(case.engine.export_kv(sequence))
        assert case.engine.length(imported) == 0
        case.engine.close(imported)


def test_kv_of_another_engine_or_damaged_is_refused(case: Case, cases: Callable[[str], Case]) -> None:
    with case.sequences() as [sequence]:
        case.engine.forward([Chunk(sequence, TEXTS[0][:8])])
        exported = case.engine.export_kv(sequence)
    stranger = cases("scripted" if case.name != "scripted" else "onnx/llama")
    with stranger.sequences() as [sequence]:
        stranger.engine.forward([Chunk(sequence, TEXTS[0][:8])])
        foreign = stranger.engine.export_kv(sequence)
    flipped = bytearray(exported)
    flipped[len(flipped) // 2] ^= 1
    for data in (b"", b"PDKV", exported[:-1], exported + b"\0", bytes(flipped), foreign, b"x" * 4096):
        with pytest.raises(KVMismatchError):
            case.engine.import_kv(data)


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_damaged_kv_is_never_taken(case: Case, data: st.DataObject) -> None:
    with case.sequences() as [sequence]:
        case.engine.forward([Chunk(sequence, TEXTS[0][:8])])
        exported = case.engine.export_kv(sequence)
    position = data.draw(st.integers(0, len(exported) - 1))
    change = data.draw(st.integers(1, 255))
    damaged = exported[:position] + bytes([exported[position] ^ change]) + exported[position + 1 :]
    with pytest.raises(KVMismatchError):
        case.engine.import_kv(damaged)


def test_as_many_sequences_as_it_says(case: Case) -> None:
    count = case.engine.info.max_sequences
    with case.sequences(count) as sequences:
        assert len(set(sequences)) == count
        case.engine.forward([Chunk(sequences[0], [1, 2])])
        kv = case.engine.export_kv(sequences[0])
        for one_more in (
            case.engine.open,
            lambda: case.engine.fork(sequences[0]),
            lambda: case.engine.import_kv(kv),
        ):
            with pytest.raises(BadInputError, match="max_sequences"):
                one_more()


def test_a_closed_sequence_is_unknown_and_its_number_never_comes_back(case: Case) -> None:
    closed = case.engine.open()
    case.engine.close(closed)
    with case.sequences(case.engine.info.max_sequences) as sequences:
        assert closed not in sequences
        for call in (
            lambda: case.engine.close(closed),
            lambda: case.engine.length(closed),
            lambda: case.engine.truncate(closed, 0),
            lambda: case.engine.export_kv(closed),
            lambda: case.engine.forward([Chunk(closed, [1])]),
        ):
            with pytest.raises(UnknownSequenceError, match=str(closed)):
                call()
