"""Score, select, judge: and nobody is harmed by a scorer that fails."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from cloud_service.refinement import Evidence, Guard, Needs, Prompt, Refinery, Wish
from cloud_service.refinement.attention import AttentionScorer
from cloud_service.refinement.floors import Floors
from cloud_service.refinement.guard import Boundary
from model_runtime.prompt_map import prompt_map

PIECES = (
    b"",
    b"user\n",
    *(f"Line {number} says so.\n".encode() for number in range(20)),
    b"Which?",
    b"",
    b"assistant\n",
)
LENGTH = len(PIECES)
PROMPT = Prompt(tuple(range(LENGTH)), PIECES, ((0, 2), (22, LENGTH)))


class Scripted:
    """A scorer that does what the test says."""

    name = "scripted"

    def __init__(self, score: Callable[[Prompt, Evidence], Any], needs: Needs | None = None) -> None:
        self.score = score
        self.needs = needs or Needs()


def pointing(*tokens: int) -> Callable[[Prompt, Evidence], np.ndarray]:
    def score(prompt: Prompt, evidence: Evidence) -> np.ndarray:
        scores = np.zeros(len(prompt.tokens), np.float32)
        scores[list(tokens)] = 1
        return scores

    return score


@pytest.fixture
def refinery():
    made: list[Refinery] = []

    def make(*stages: Scripted, guard: Guard | None = None) -> Refinery:
        made.append(Refinery(stages, guard))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_what_matters_is_kept_and_the_rest_is_not(refinery) -> None:
    refined = refinery(Scripted(pointing(5)), guard=Guard()).refine(Wish(PROMPT, 0.3), 0, Evidence())
    assert refined.guard == "passed"
    assert refined.scorer == "scripted"
    assert refined.keep is not None
    kept = {token for start, end in refined.keep for token in range(start, end)}
    assert {0, 1, 5, 22, 23, 24} <= kept
    assert len(kept) <= 0.3 * LENGTH
    assert refined.kept_share == pytest.approx(len(kept) / LENGTH)
    assert refined.cost_s > 0


@pytest.mark.parametrize(
    "score",
    [
        lambda prompt, evidence: 1 / 0,
        lambda prompt, evidence: np.full(LENGTH, np.nan, np.float32),
        lambda prompt, evidence: np.zeros(LENGTH - 1, np.float32),
        lambda prompt, evidence: None,
    ],
)
def test_a_scorer_that_fails_costs_no_more_than_a_prompt_kept_whole(refinery, caplog, score) -> None:
    with caplog.at_level(logging.ERROR):
        refined = refinery(Scripted(score), guard=Guard()).refine(Wish(PROMPT, 0.3), 0, Evidence())
    assert (refined.guard, refined.keep, refined.kept_share) == ("failed", None, 1.0)
    assert "scoring failed" in caplog.text


def test_where_nothing_can_be_left_out(refinery) -> None:
    wish = Wish(Prompt(PROMPT.tokens, PIECES, ((0, LENGTH),)), 0.3)
    refined = refinery(Scripted(pointing(5))).refine(wish, 0, Evidence())
    assert (refined.guard, refined.keep) == ("short", None)


def test_lines_below_the_floor_are_left_out_of_what_the_guard_has_passed() -> None:
    def scores(prompt: Prompt, evidence: Evidence) -> np.ndarray:
        values = np.full(len(prompt.tokens), 0.01, np.float32)
        values[[4, 6, 9, 11, 15, 12]] = 1.0, 0.9, 0.5, 0.5, 0.4, 0.2
        return values

    refinery = Refinery([Scripted(scores)], Guard(), floors=Floors(0.3, 0.3))
    refined = refinery.refine(Wish(PROMPT, 0.7), 0, Evidence())
    full = Refinery([Scripted(scores)], Guard()).refine(Wish(PROMPT, 0.7), 0, Evidence())
    refinery.close()
    assert (refined.guard, refined.detail) == (full.guard, full.detail)
    assert refined.spans == refined.keep
    kept = {token for start, end in refined.spans or () for token in range(start, end)}
    assert kept == {0, 1, 4, 6, 9, 11, 15, 22, 23, 24}
    assert full.kept_share > 0.6 > refined.kept_share


def test_where_no_line_fits(refinery) -> None:
    """An answer to nothing would be none."""
    refined = refinery(Scripted(pointing(1))).refine(
        Wish(Prompt((1, 2), (b"One line.", b" Of two.")), 0.3), 0, Evidence()
    )
    assert (refined.guard, refined.keep, refined.spans) == ("short", None, None)


def test_only_the_first_stage_is_judged(refinery) -> None:
    flat = Guard(Boundary((0.0,) * 5, 1.0))
    second = Scripted(pointing(5), Needs(layers=(0,), answer_rows=2))
    both = refinery(Scripted(pointing(5)), second, guard=flat)
    assert both.refine(Wish(PROMPT, 0.3), 0, Evidence()).guard == "flat"
    assert both.refine(Wish(PROMPT, 0.3), 1, Evidence()).guard == "passed"


@pytest.mark.parametrize("ratio", [0.25, 0.4, 0.8])
def test_what_a_calibrated_guard_says_does_not_depend_on_how_much_may_be_kept(refinery, ratio: float) -> None:
    def scores(prompt: Prompt, evidence: Evidence) -> np.ndarray:
        values = np.full(len(prompt.tokens), 0.01, np.float32)
        values[2:20:2] = np.linspace(0.5, 1.0, 9)
        return values

    covered_alone = Guard(Boundary((0.0, 0.0, 0.0, 0.0, -1.0), 0.0))  # flat where less than half is covered
    refined = refinery(Scripted(scores), guard=covered_alone).refine(Wish(PROMPT, ratio), 0, Evidence())
    usual = refinery(Scripted(scores), guard=covered_alone).refine(Wish(PROMPT, 0.25), 0, Evidence())
    assert (refined.guard, refined.detail) == (usual.guard, usual.detail) == ("flat", usual.detail)


def test_spans_go_back_in_the_characters_of_the_messages(refinery) -> None:
    content = "".join(f"Line {number} says so.\n" for number in range(20)) + "Which?"
    where = prompt_map([{"role": "user", "content": content}], PIECES)
    refined = refinery(Scripted(pointing(5))).refine(Wish(PROMPT, 0.3, where), 0, Evidence())
    assert refined.keep is not None
    kept = [content[start:end] for start, end in refined.keep]
    assert any("Line 3 says so." in text for text in kept)
    assert kept[-1].endswith("Which?")


def test_what_the_stages_need_together(refinery) -> None:
    first = Scripted(pointing(1), Needs(layers=(1, 2), prompt_rows=8))
    second = Scripted(pointing(1), Needs(layers=(1, 2), answer_rows=4))
    assert refinery(first, second).needs == Needs(layers=(1, 2), prompt_rows=8, answer_rows=4)
    assert refinery(first).needs == first.needs
    assert refinery().needs.nothing
    with pytest.raises(ValueError, match="cannot wait"):
        Refinery([second])
    with pytest.raises(ValueError, match="two stages"):
        Refinery([first, first])


def test_a_guard_gets_what_it_watches_from_the_scorer(refinery) -> None:
    attention = np.zeros((1, 2, 4, LENGTH), np.float32)
    attention[0, 1, :, 5] = 0.9
    seen = Evidence(attention, (3,))
    scorer = AttentionScorer((3,), heads=[(3, 1)])
    for head, word in ((0, "passed"), (1, "flat")):
        guard = Guard(Boundary((0.0,) * 5 + (1.0,), 0.0, heads=((3, head),)))
        assert refinery(scorer, guard=guard).refine(Wish(PROMPT, 0.3), 0, seen).guard == word
    with pytest.raises(ValueError, match="cannot say"):
        Refinery([Scripted(pointing(1))], guard)


def test_without_a_scorer_everything_is_kept(refinery) -> None:
    assert refinery().whole().guard == "unavailable"
    assert refinery().whole().keep is None


def test_a_closed_refinery_does_nothing_and_lets_go() -> None:
    released: list[bool] = []
    closed = Refinery([Scripted(pointing(1))], release=lambda: released.append(True))
    closed.close()
    assert closed.run(print).cancelled()
    closed._thread.shutdown(wait=True)
    assert released == [True]
