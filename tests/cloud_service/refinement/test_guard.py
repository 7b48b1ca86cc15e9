"""When the whole prompt is kept although scores would leave some of it out."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud_service.refinement.calibrate.fitting import fit_line
from cloud_service.refinement.contract import Prompt
from cloud_service.refinement.guard import Boundary, Figures, Guard, figures_of
from cloud_service.refinement.selection import select

LINES = 20
PIECES = (
    b"Log.\n",
    *(word for _ in range(LINES) for word in (b"one two three ", b"four five six ", b"seven.\n")),
    b"Who?",
)
PROMPT = Prompt(tuple(range(len(PIECES))), PIECES, ((0, 1), (len(PIECES) - 1, len(PIECES))))


def scores(**lines: float) -> np.ndarray:
    """A little everywhere, and what is said on single lines (`l3=0.5`)."""
    values = np.full(len(PIECES), 0.01, np.float32)
    for line, value in lines.items():
        values[1 + 3 * int(line[1:])] = value
    return values


def judged(values: np.ndarray, boundary: Boundary | None = None, ratio: float = 0.25) -> str:
    return Guard(boundary).judge(figures_of(PROMPT, values, select(PROMPT, values, ratio))).word


def test_a_few_lines_that_stand_out_may_stand_alone() -> None:
    assert judged(scores(l3=0.9, l17=0.5)) == "passed"


def test_what_is_spread_over_everything_keeps_everything() -> None:
    assert judged(scores()) == "flat"
    assert judged(np.zeros(len(PIECES), np.float32)) == "flat"
    most = {f"l{line}": 0.1 + line / 1000 for line in range(12)}
    assert judged(scores(**most)) == "flat", "hardly any line stands out from the others"
    some = {f"l{line}": 0.1 for line in range(9)}
    assert judged(scores(**some)) == "flat", "nine lines stand out, and a quarter of the prompt holds four"
    assert judged(scores(**some), ratio=0.6) == "passed"


def test_the_verdict_says_what_it_rests_on() -> None:
    values = scores(l3=0.9)
    detail = Guard().judge(figures_of(PROMPT, values, select(PROMPT, values, 0.25))).detail
    assert "best unit" in detail
    assert len(detail) <= 200, "it travels in a message"


def test_a_boundary_takes_the_place_of_the_rule() -> None:
    lookup, spread = scores(l3=0.9), scores(**{f"l{line}": 0.1 + line / 1000 for line in range(12)})
    always, never = Boundary((0.0,) * 5, 1.0), Boundary((0.0,) * 5, -1.0)
    assert judged(lookup, always) == judged(spread, always) == "flat"
    assert judged(lookup, never) == judged(spread, never) == "passed"


def test_a_boundary_may_ask_what_heads_regard() -> None:
    values = scores(l3=0.9)
    kept = select(PROMPT, values, 0.25)
    guard = Guard(Boundary((0.0,) * 5 + (1.0,), 0.0, heads=((3, 1),)))
    assert guard.heads == ((3, 1),)
    assert guard.judge(figures_of(PROMPT, values, kept, (0.1,))).word == "passed"
    assert guard.judge(figures_of(PROMPT, values, kept, (0.9,))).word == "flat"


def test_figures() -> None:
    values = scores(l3=0.41)
    figures = figures_of(PROMPT, values, select(PROMPT, values, 0.25), (0.5,))
    assert figures is not None
    assert figures.covered == pytest.approx(1.0)
    best = (0.41 + 2 * 0.01) / 3  # a line has three tokens
    assert figures.peak == pytest.approx(best / (best + (LINES - 1) * 0.01))
    assert 1 / LINES < figures.spread < 0.3
    assert figures.tokens == len(PIECES)
    assert figures.regards == (0.5,)
    missed = figures_of(PROMPT, values, ((0, 1), (4, 7)))
    assert missed is not None
    assert missed.covered == 0.0


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=len(PIECES), max_size=len(PIECES)), st.floats(0.05, 0.9))
def test_any_finite_scores_get_a_verdict(values: list[float], ratio: float) -> None:
    array = np.array(values, np.float32)
    kept = select(PROMPT, array, ratio)
    assert Guard().judge(figures_of(PROMPT, array, kept)).word in {"flat", "passed"}
    figures = figures_of(PROMPT, array, kept)
    assert figures is None or np.isfinite(figures.vector()).all()


def test_the_line_between_two_kinds_is_found() -> None:
    rng = np.random.default_rng(0)
    base = Figures(peak=0.1, spread=0.5, covered=0.5, level=0.01, tokens=1000, regards=(0.3,))

    def some(regard: float, count: int) -> list[Figures]:
        near = np.clip(rng.normal(regard, 0.05, count), 0.01, 0.99)
        return [
            dataclasses.replace(base, regards=(float(value),), peak=float(rng.uniform(0.01, 0.9))) for value in near
        ]

    flat, telling = some(0.6, 60), some(0.3, 20)
    weights, bias = fit_line(*(np.array([figures.vector() for figures in side]) for side in (flat, telling)))
    boundary = Boundary(tuple(weights.tolist()), bias)
    assert np.mean([boundary.flatness(figures) > 0 for figures in some(0.6, 100)]) > 0.95
    assert np.mean([boundary.flatness(figures) > 0 for figures in some(0.3, 100)]) < 0.05
