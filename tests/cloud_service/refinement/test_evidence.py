"""However a prompt is cut into chunks, a scorer sees the same."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cloud_service.refinement.contract import Needs
from cloud_service.scheduler.evidence import EvidenceCollector
from cloud_service.scheduler.jobs import Seen
from model_runtime.core import Chunk, Logits
from model_runtime.testing import ScriptedEngine

ENGINE = ScriptedEngine(layers=2, heads=2)
PROMPT = tuple(ENGINE.tokenizer.encode("the crew of the north gate was at the pump in the café"))


def feed(needs: Needs, cuts: list[int], answer: tuple[int, ...] = (), cached: int = 0) -> list[Seen]:
    """Feed the prompt in chunks that end at `cuts`, then the answer token by token."""
    collector = EvidenceCollector(needs, PROMPT, len(PROMPT))
    tokens = PROMPT + answer
    sequence = ENGINE.open()
    if cached:
        ENGINE.forward([Chunk(sequence, PROMPT[:cached], Logits.NONE)])
    borders = sorted({cached, *(cut for cut in cuts if cut > cached), *range(len(PROMPT), len(tokens) + 1)})
    seen = []
    for start, end in pairwise(borders):
        chunk = collector.equip(Chunk(sequence, tokens[start:end], Logits.LAST), start)
        found = collector.take(chunk, start, ENGINE.forward([chunk])[0])
        seen += [] if found is None else [found]
    ENGINE.close(sequence)
    return seen


@given(
    st.lists(st.integers(1, len(PROMPT) - 1), max_size=5), st.integers(1, len(PROMPT) + 3), st.booleans(),
)  # fmt: skip
def test_chunks_do_not_show(cuts: list[int], rows: int, logprobs: bool) -> None:
    needs = Needs(layers=(0, 1), prompt_rows=rows, logprobs=logprobs)
    (whole,), (cut,) = feed(needs, []), feed(needs, cuts)
    assert whole.stage == cut.stage == "prompt"
    assert whole.evidence.attention is not None
    assert cut.evidence.attention is not None
    assert whole.evidence.layers == cut.evidence.layers == (0, 1)
    assert cut.evidence.attention.shape == (2, 2, min(rows, len(PROMPT)), len(PROMPT))
    np.testing.assert_allclose(cut.evidence.attention, whole.evidence.attention, rtol=1e-6)
    if logprobs:
        assert whole.evidence.logprobs is not None
        assert cut.evidence.logprobs is not None
        assert cut.evidence.logprobs.shape == (len(PROMPT),)
        assert cut.evidence.logprobs[0] == 0
        assert (cut.evidence.logprobs <= 0).all()
        np.testing.assert_allclose(cut.evidence.logprobs, whole.evidence.logprobs, rtol=1e-5)
    else:
        assert cut.evidence.logprobs is None


def test_logprobs_are_those_of_the_next_token() -> None:
    sequence = ENGINE.open()
    logits = ENGINE.forward([Chunk(sequence, PROMPT, Logits.ALL)])[0].logits.astype(np.float64)
    ENGINE.close(sequence)
    normal = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    expected = [0.0, *(normal[at, token] for at, token in enumerate(PROMPT[1:]))]
    (seen,) = feed(Needs(logprobs=True), [3])
    np.testing.assert_allclose(seen.evidence.logprobs, expected, rtol=1e-4)


def test_what_nobody_needs_is_not_asked_for() -> None:
    collector = EvidenceCollector(Needs(layers=(1,), prompt_rows=4), PROMPT, len(PROMPT))
    chunk = Chunk(0, PROMPT[:5], Logits.NONE)
    assert collector.equip(chunk, 0) == chunk
    assert collector.equip(Chunk(0, (7,), Logits.LAST), len(PROMPT)).tap is None
    assert feed(Needs(), [4], answer=(256, 257)) == []


def test_a_cached_prefix_leaves_the_rows_that_are_fed() -> None:
    (seen,) = feed(Needs(layers=(0,), prompt_rows=6), [], cached=len(PROMPT) - 2)
    assert seen.evidence.attention is not None
    assert seen.evidence.attention.shape == (1, 2, 2, len(PROMPT))


def test_the_answers_first_tokens_are_a_stage_of_their_own() -> None:
    needs = Needs(layers=(0,), prompt_rows=2, answer_rows=3)
    assert [seen.stage for seen in feed(needs, [4], answer=(256, 257))] == ["prompt"], "an answer that is too short"
    first, second = feed(needs, [4], answer=(256, 257, 258, 259))
    assert (first.stage, second.stage) == ("prompt", "answer")
    assert second.evidence.attention is not None
    assert second.evidence.attention.shape == (1, 2, 3, len(PROMPT)), "rows of the answer over the prompt alone"
