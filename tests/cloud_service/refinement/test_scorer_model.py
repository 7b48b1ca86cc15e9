"""A small model beside the engine, with a tokenizer of its own."""

from __future__ import annotations

import dataclasses
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud_service.refinement.attention import AttentionScorer
from cloud_service.refinement.contract import Evidence, Prompt
from cloud_service.refinement.scorer_model import ScorerModel, transfer
from cloud_service.refinement.selection import select
from model_runtime.testing import ScriptedEngine, ScriptedTokenizer


def cut(data: bytes, places: list[int]) -> tuple[bytes, ...]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return tuple(data[start:end] for start, end in pairwise(edges))


@given(st.binary(min_size=1, max_size=60), st.lists(st.integers(0, 60)), st.lists(st.integers(0, 60)))
def test_each_token_gets_the_best_of_its_bytes(data: bytes, ours: list[int], theirs: list[int]) -> None:
    pieces, onto = cut(data, ours), cut(data, theirs)
    scores = np.arange(1, len(pieces) + 1, dtype=np.float32)
    by_byte = [score for score, piece in zip(scores, pieces, strict=True) for _ in piece]
    moved = transfer(scores, pieces, onto)
    position = 0
    for score, piece in zip(moved, onto, strict=True):
        assert score == max(by_byte[position : position + len(piece)], default=0)
        position += len(piece)


def test_a_text_that_lost_bytes_on_its_way_still_gets_scores() -> None:
    assert transfer(np.ones(2, np.float32), (b"ab", b"c"), (b"ab", b"cdef", b"gh")).tolist() == [1, 1, 0]
    assert transfer(np.ones(2, np.float32), (b"ab", b"cdef"), (b"ab",)).tolist() == [1]


def prompt() -> Prompt:
    """In tokens of a tokenizer that has other words than the scorer model's."""
    lines = [
        " the crew was at the pump.",
        " a valve is of the north.",
        " it was with the café.",
        " by the gate a crew.",
    ]
    text = "".join(f"{lines[number % 4]}\n" for number in range(40)) + " in zzzz.\n" + " zzzz?"
    tokenizer = ScriptedEngine().tokenizer
    tokens = tuple(tokenizer.encode(text))
    return Prompt(tokens, tuple(map(tokenizer.token_bytes, tokens)), ((len(tokens) - 6, len(tokens)),))


def test_it_finds_what_the_question_repeats() -> None:
    engine = ScriptedEngine(tokenizer=ScriptedTokenizer((" crew", " pump", " zz", "zz", ".\n")))
    scorer = ScorerModel(engine, AttentionScorer((0, 1)))
    assert scorer.needs.nothing, "it can begin before the serving engine does"
    asked = prompt()
    scores = scorer.score(asked, Evidence())
    assert scores.shape == (len(asked.tokens),)
    assert 0 < scorer.regards(asked, Evidence(), [(1, 0)])[0] <= 1
    kept = b"".join(b"".join(asked.pieces[start:end]) for start, end in select(asked, scores, 0.1))
    assert b" in zzzz.\n" in kept
    again = [engine.open() for _ in range(engine.info.max_sequences)]
    assert len(again) == engine.info.max_sequences, "no sequence was left open"
    scorer.close()


def test_a_prompt_beyond_its_context_is_refused() -> None:
    scorer = ScorerModel(ScriptedEngine(context_length=64), AttentionScorer((0,)))
    with pytest.raises(ValueError, match="its context is 64"):
        scorer.score(prompt(), Evidence())


def test_what_is_protected_stays_out_of_the_asking_text() -> None:
    """A prompt that is nothing but protected still gets finite scores."""
    whole = prompt()
    everything = dataclasses.replace(whole, protected=((0, len(whole.tokens)),))
    scores = ScorerModel(ScriptedEngine(), AttentionScorer((0,))).score(everything, Evidence())
    assert np.isfinite(scores).all()
