"""Baselines: each keeps what its idea says, in any script, and refuses what it cannot work from."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud_service.refinement.baselines import BM25, HeadTail, RandomUnits, SelfInformation
from cloud_service.refinement.baselines.bm25 import words
from cloud_service.refinement.contract import Evidence, Prompt, Scorer
from cloud_service.refinement.selection import select

NOTHING = Evidence()


def by_word(text: str, protected_tail: int = 0) -> Prompt:
    pieces = tuple(piece.encode() for piece in re.findall(r"\s*\w+|\s*[^\w\s]\n*|\s+", text))
    assert b"".join(pieces).decode() == text
    edge = len(pieces) - protected_tail
    return Prompt(tuple(range(len(pieces))), pieces, ((edge, len(pieces)),) if protected_tail else ())


def kept(scorer: Scorer, prompt: Prompt, ratio: float, evidence: Evidence = NOTHING) -> str:
    spans = select(prompt, scorer.score(prompt, evidence), ratio)
    return b"".join(piece for start, stop in spans for piece in prompt.pieces[start:stop]).decode()


LOG = "\n".join(f"{number} {name} moved the {name.lower()} box over there." for number, name in enumerate(
    ["Amber", "Bela", "Cleo", "Dario", "Elif", "Finn", "Gina", "Hugo"], 100))  # fmt: skip


def test_bm25_keeps_the_line_that_shares_rare_words_with_the_question() -> None:
    prompt = by_word(f"{LOG}\n\nWho moved the dario box?", 6)
    assert "103 Dario moved the dario box" in kept(BM25(), prompt, 0.3)


def test_bm25_does_not_ask_with_lines_that_a_window_protects() -> None:
    prompt = by_word(f"{LOG}\n\nWho moved the dario box?", 16)
    assert b"Hugo" in b"".join(prompt.pieces[-16:])
    scores = BM25().score(prompt, NOTHING)
    of_line = [scores[at] for at, piece in enumerate(prompt.pieces) if re.fullmatch(rb"\s*10\d", piece)]
    assert int(np.argmax(of_line)) == 3


def test_bm25_asks_with_the_last_line_where_nothing_is_protected() -> None:
    prompt = by_word(f"{LOG}\n\nWho moved the gina box?")
    scores = BM25().score(prompt, NOTHING)
    of_line = [scores[at] for at, piece in enumerate(prompt.pieces) if re.fullmatch(rb"\s*10\d", piece)]
    assert int(np.argmax(of_line)) == 6


def test_bm25_reads_scripts_without_spaces() -> None:
    text = "阿达在南院修理了备用水泵。维姆把琥珀阀门搬到了北阁楼。贝拉以十二克朗卖掉了蓝色箱子。谁搬了琥珀阀门?"
    pieces = tuple(character.encode() for character in text)
    prompt = Prompt(tuple(range(len(pieces))), pieces, ((len(pieces) - 8, len(pieces)),))
    assert "维姆把琥珀阀门搬到了北阁楼。" in kept(BM25(), prompt, 0.55)


@pytest.mark.parametrize("text", ["", "?!", "...\n...", "\n\n\n"])
def test_bm25_scores_nothing_where_there_are_no_words(text: str) -> None:
    prompt = by_word(text)
    assert BM25().score(prompt, NOTHING).tolist() == [0.0] * len(prompt.tokens)


def test_words_are_folded_and_unspaced_scripts_are_pairs() -> None:
    assert list(words("Straße 3.14, THE Ｖalve")) == ["strasse", "3", "14", "the", "valve"]
    assert list(words("东京x大阪市 猫")) == ["东京", "x", "大阪", "阪市", "猫"]


def test_head_and_tail_leave_out_the_middle() -> None:
    prompt = by_word(LOG)
    found = kept(HeadTail(), prompt, 0.5)
    assert re.findall(r"10\d", found) == ["100", "101", "106", "107"]


def test_random_is_repeatable_and_differs_by_seed_and_prompt() -> None:
    prompt, other = by_word(LOG), by_word(LOG.replace("box", "bag"))
    assert (RandomUnits(1).score(prompt, NOTHING) == RandomUnits(1).score(prompt, NOTHING)).all()
    assert (RandomUnits(1).score(prompt, NOTHING) != RandomUnits(2).score(prompt, NOTHING)).any()
    assert (RandomUnits(1).score(prompt, NOTHING) != RandomUnits(1).score(other, NOTHING)).any()


def test_random_favours_no_position() -> None:
    prompt = by_word(LOG)
    chosen = [int(RandomUnits(seed).score(prompt, NOTHING).argmax() * 8 / len(prompt.tokens)) for seed in range(400)]
    assert min(chosen.count(line) for line in range(8)) > 20  # 50 expected of each


def test_self_information_keeps_what_surprises() -> None:
    prompt = by_word(LOG)
    logprobs = np.full(len(prompt.tokens), -0.5, np.float32)
    logprobs[[b"Finn" in piece for piece in prompt.pieces]] = -9.0
    assert "105 Finn" in kept(SelfInformation(), prompt, 0.2, Evidence(logprobs=logprobs))


def test_self_information_says_what_it_lacks() -> None:
    assert SelfInformation().needs.logprobs
    with pytest.raises(ValueError, match="log-probabilities"):
        SelfInformation().score(by_word(LOG), NOTHING)


@given(
    st.lists(st.one_of(st.binary(max_size=4), st.text(max_size=4).map(str.encode)), max_size=60),
    st.integers(0, 60),
)
def test_every_baseline_scores_any_prompt(pieces: list[bytes], tail: int) -> None:
    edge = max(0, len(pieces) - tail)
    prompt = Prompt(tuple(range(len(pieces))), tuple(pieces), ((edge, len(pieces)),) if edge < len(pieces) else ())
    evidence = Evidence(logprobs=np.linspace(0, -5, len(pieces)).astype(np.float32))
    for scorer in (BM25(), HeadTail(), RandomUnits(), SelfInformation()):
        scores = scorer.score(prompt, evidence)
        assert scores.shape == (len(pieces),), scorer.name
        assert scores.dtype == np.float32
        assert np.isfinite(scores).all()
