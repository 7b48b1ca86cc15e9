"""The engine's own attention as a scorer, over weights that the test makes up."""

from __future__ import annotations

import numpy as np
import pytest

from cloud_service.refinement.answer_attention import AnswerAttention
from cloud_service.refinement.attention import AttentionScorer, asking_rows, default_layers, regard
from cloud_service.refinement.contract import Evidence, Prompt

PIECES = (
    b"",
    b"user\n",
    b"Fog came in.\n",
    b"Ivo painted.\n",
    b"\n",
    b"Who ",
    b"painted?",
    b"",
    b"\n",
    b"",
    b"assistant\n",
)
PROMPT = Prompt(tuple(range(len(PIECES))), PIECES)
ASKING = [5, 6, 8, 10]


def evidence(layers: tuple[int, ...] = (2, 3), heads: int = 2, rows: int = len(PIECES)) -> Evidence:
    return Evidence(np.zeros((len(layers), heads, rows, len(PIECES)), np.float32), layers)


@pytest.mark.parametrize(
    ("layers", "expected"), [(1, (0,)), (4, (0, 1, 2, 3)), (8, (2, 3, 4, 5)), (32, (12, 13, 14, 15))]
)
def test_without_a_calibration_four_neighbouring_layers_are_taken(layers: int, expected: tuple[int, ...]) -> None:
    assert default_layers(layers) == expected


def test_the_last_line_of_the_question_and_the_template_behind_it_ask() -> None:
    assert asking_rows(PIECES, len(PIECES)) == ASKING
    assert asking_rows(PIECES, 5) == [0, 2, 4], "of the last five rows, those that ask"


def test_where_nothing_tells_the_question_apart_all_rows_ask() -> None:
    assert asking_rows((b"one ", b"two ", b"three and four"), 2) == [0, 1]
    assert asking_rows((b"", b"a", b""), 3) == [0, 1, 2]


def test_a_token_is_as_important_as_the_rows_that_ask_find_it() -> None:
    seen = evidence()
    assert seen.attention is not None
    seen.attention[0, 0, 6, 3] = 0.8
    seen.attention[1, 1, 8, 3] = 0.4
    seen.attention[0, 1, 2, 2] = 1.0  # a row of the text itself
    scores = AttentionScorer((2, 3)).score(PROMPT, seen)
    assert scores.dtype == np.float32
    assert scores.tolist() == pytest.approx([0, 0, 0, 0.3] + [0] * 7)


def test_calibrated_heads_are_looked_at_alone() -> None:
    seen = evidence()
    assert seen.attention is not None
    seen.attention[1, 0, 6, 3] = 0.5
    seen.attention[0, 1, 6, 2] = 1.0
    assert AttentionScorer((2, 3), heads=[(3, 0)]).score(PROMPT, seen).tolist() == pytest.approx(
        [0, 0, 0, 0.5] + [0] * 7
    )


def test_where_heads_rest_is_not_important() -> None:
    seen = evidence()
    assert seen.attention is not None
    seen.attention[..., 0] = seen.attention[..., 7] = 1.0
    assert not AttentionScorer((2, 3)).score(PROMPT, seen).any()


def test_without_the_attention_that_was_asked_for_there_is_no_score() -> None:
    with pytest.raises(ValueError, match="none was seen"):
        AttentionScorer((2, 3)).score(PROMPT, Evidence())
    with pytest.raises(ValueError, match="not in tuple"):
        AttentionScorer((2, 3), heads=[(5, 0)]).score(PROMPT, evidence())


def test_regard_is_what_the_question_gives_the_text_before_it() -> None:
    seen = evidence()
    assert seen.attention is not None
    seen.attention[0, 0, ASKING, 3] = 0.5
    seen.attention[0, 0, ASKING, 6] = 0.5  # the question itself
    seen.attention[0, 1, 2, 1] = 1.0  # a row that does not ask
    assert regard(PROMPT, seen.attention).tolist() == [[0.5, 0.0], [0.0, 0.0]]


def test_the_answers_rows_add_to_what_the_question_found() -> None:
    seen = evidence(rows=3)
    assert seen.attention is not None
    seen.attention[:, :, 1, 2] = 0.2
    earlier = np.zeros(len(PIECES), np.float32)
    earlier[3] = 0.01
    scorer = AnswerAttention((2, 3))
    assert scorer.score(PROMPT, seen).tolist() == pytest.approx([0, 0, 0.2] + [0] * 8)
    together = scorer.score(PROMPT, Evidence(seen.attention, seen.layers, earlier=earlier))
    assert together.tolist() == pytest.approx([0, 0, 0.5, 1] + [0] * 7)
