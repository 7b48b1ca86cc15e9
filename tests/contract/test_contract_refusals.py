"""What engines refuse, with a message that names it, and without losing anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from model_runtime.core import AttentionTap, Chunk
from model_runtime.errors import (
    BadInputError,
    BadTokenError,
    ContextOverflowError,
    EngineFailedError,
    UnknownSequenceError,
)

if TYPE_CHECKING:
    from model_runtime.core import Engine
    from tests.contract.conftest import Case

TEXT = [int(token) for token in np.random.default_rng(5).integers(0, 258, 30)]

BAD_TOKENS = {
    "negative": [5, -1],
    "beyond the vocabulary": [5, 1_000_000],
    "beyond 64 bits": [2**70],
    "a fraction": [1.5],
    "a truth": [True],
    "a text": ["a"],
    "nested": [[1, 2]],
}


def refused(engine: Engine, sequence: int) -> list[tuple[list[Chunk], type[BadInputError], str]]:
    room = engine.info.context_length - len(TEXT)
    return [
        ([Chunk(sequence, [])], BadInputError, "empty"),
        ([Chunk(sequence, [1]), Chunk(sequence, [2])], BadInputError, "twice"),
        ([Chunk(sequence, [1] * (room + 1))], ContextOverflowError, str(engine.info.context_length)),
        ([Chunk(sequence, [1]), Chunk(10_000, [1])], UnknownSequenceError, "10000"),
        ([Chunk(sequence, [1], tap=AttentionTap((), 4))], BadInputError, "tap"),
        ([Chunk(sequence, [1], tap=AttentionTap((0,), 0))], BadInputError, "tap"),
        ([Chunk(sequence, [1], tap=AttentionTap((0, 99), 4))], BadInputError, "99"),
        *(([Chunk(sequence, tokens)], BadTokenError, "token") for tokens in BAD_TOKENS.values()),
    ]


def test_refused_passes_lose_nothing(case: Case) -> None:
    engine = case.engine
    with case.sequences(2) as [sequence, control]:
        for each in (sequence, control):
            engine.forward([Chunk(each, TEXT)])
        for chunks, error, message in refused(engine, sequence):
            with pytest.raises(error, match=message):
                engine.forward(chunks)
            # The good half of a refused pass is not run either.
            with pytest.raises(error, match=message):
                engine.forward([Chunk(control, [3]), *chunks])
            assert engine.length(sequence) == engine.length(control) == len(TEXT)
        results = engine.forward([Chunk(sequence, [7]), Chunk(control, [7])])
    np.testing.assert_allclose(results[0].logits, results[1].logits, atol=1e-5 + case.tolerance / 10)
    if case.exact is not None:
        np.testing.assert_allclose(results[0].logits[0], case.exact.run([*TEXT, 7])[0][-1], atol=case.tolerance)


def test_the_context_can_be_filled_to_its_last_token(case: Case) -> None:
    with case.sequences() as [sequence]:
        room = case.engine.info.context_length
        filler = (TEXT * room)[:room]
        case.engine.forward([Chunk(sequence, filler[:-1])])
        [result] = case.engine.forward([Chunk(sequence, filler[-1:])])
        assert case.engine.length(sequence) == room
        if case.exact is not None:
            np.testing.assert_allclose(result.logits[0], case.exact.run(filler)[0][-1], atol=case.tolerance)
        with pytest.raises(ContextOverflowError):
            case.engine.forward([Chunk(sequence, [1])])


def test_shutdown_is_final_and_idempotent(case: Case) -> None:
    engine = case.load()
    sequence = engine.open()
    engine.forward([Chunk(sequence, [1, 2, 3])])
    kv = engine.export_kv(sequence)
    engine.shutdown()
    engine.shutdown()
    for call in (
        engine.open,
        lambda: engine.close(sequence),
        lambda: engine.fork(sequence),
        lambda: engine.truncate(sequence, 0),
        lambda: engine.length(sequence),
        lambda: engine.export_kv(sequence),
        lambda: engine.import_kv(kv),
        lambda: engine.forward([Chunk(sequence, [1])]),
    ):
        with pytest.raises(EngineFailedError, match="shut down"):
            call()
    # What it was can still be told.
    assert engine.info.vocabulary_size > 0
    assert engine.tokenizer.vocabulary_size > 0


def test_leaving_a_with_block_shuts_down(case: Case) -> None:
    with case.load() as engine:
        engine.open()
    with pytest.raises(EngineFailedError):
        engine.open()
