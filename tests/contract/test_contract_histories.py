"""Whatever is done to sequences in whatever order, each answers as its history says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from model_runtime.core import Chunk

if TYPE_CHECKING:
    from tests.contract.conftest import Case

TOKENS = st.integers(0, 257)
CHUNK = st.lists(TOKENS, min_size=1, max_size=9)
INDEX = st.integers(0, 3)
STEPS = st.lists(
    st.one_of(
        # Which sequences get which chunk; decode steps of several are the likeliest, as they share passes.
        st.tuples(st.just("pass"), st.dictionaries(INDEX, CHUNK, min_size=1)),
        st.tuples(st.just("pass"), st.dictionaries(INDEX, st.lists(TOKENS, min_size=1, max_size=1), min_size=2)),
        st.tuples(st.just("truncate"), INDEX, st.integers(0, 12)),
        st.tuples(st.just("fork"), INDEX, INDEX),
        st.tuples(st.just("move"), INDEX),
    ),
    max_size=12,
)


@settings(max_examples=15, deadline=None)
@given(steps=STEPS)
def test_every_sequence_answers_as_its_history_says(case: Case, steps: list[tuple]) -> None:
    engine = case.engine
    histories: list[list[int]] = [[], [], [], []]
    sequences = [engine.open() for _ in histories]

    def replace(index: int, sequence: int) -> None:
        engine.close(sequences[index])
        sequences[index] = sequence

    def run_pass(chunks: dict[int, list[int]]) -> None:
        results = engine.forward([Chunk(sequences[index], tokens) for index, tokens in chunks.items()])
        for (index, tokens), result in zip(chunks.items(), results, strict=True):
            histories[index] += tokens
            assert engine.length(sequences[index]) == len(histories[index])
            if case.exact is not None:
                exact = case.exact.run(histories[index])[0][-1]
                np.testing.assert_allclose(result.logits[0], exact, atol=case.tolerance, rtol=0)

    try:
        for step in steps:
            match step:
                case ("pass", chunks):
                    run_pass(chunks)
                case ("truncate", index, length):
                    histories[index] = histories[index][:length]
                    engine.truncate(sequences[index], len(histories[index]))
                case ("fork", source, index):
                    forked = engine.fork(sequences[source])
                    histories[index] = list(histories[source])
                    replace(index, forked)
                case ("move", index):
                    replace(index, engine.import_kv(engine.export_kv(sequences[index])))
        run_pass({index: [65 + index] for index in range(4)})
    finally:
        for sequence in sequences:
            engine.close(sequence)
