"""Selection: what is kept is what was asked for, whatever the text, its script and its tokens are."""

from __future__ import annotations

import math
import re
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud_service.refinement.contract import Prompt
from cloud_service.refinement.selection import LEAST_UNITS, importance, select
from cloud_service.refinement.units import LARGEST, Cut, layout, units, whole_characters

TEXTS = st.one_of(
    st.text(max_size=300),
    st.lists(
        st.sampled_from(["A cat sat. ", "It ran", ".\n", "\n\n", "猫坐着。", '{"a": 1},', "\t|", "é", "🦊", " ", "x"]),
        max_size=80,
    ).map("".join),
)


@st.composite
def prompts(draw: st.DrawFn) -> Prompt:
    """Any bytes, cut into tokens anywhere, special tokens between them, anything protected."""
    data = draw(st.one_of(TEXTS.map(str.encode), st.binary(max_size=100)))
    places = draw(st.lists(st.integers(0, len(data)), max_size=120))
    edges = [0, *sorted(places), len(data)]
    pieces = tuple(data[start:stop] for start, stop in pairwise(edges))
    ends = sorted(draw(st.sets(st.integers(0, len(pieces)), max_size=8)))
    protected = tuple(zip(ends[::2], ends[1::2], strict=False))
    return Prompt(tuple(range(len(pieces))), pieces, protected)


@st.composite
def cases(draw: st.DrawFn) -> tuple[Prompt, np.ndarray, float]:
    prompt = draw(prompts())
    scores = draw(st.lists(st.floats(-1e6, 1e6, width=32), min_size=len(prompt.tokens), max_size=len(prompt.tokens)))
    ratio = draw(st.floats(0, 1, exclude_min=True))
    return prompt, np.array(scores, np.float32), ratio


def is_inside_a_character(data: bytes, offset: int) -> bool:
    """By the definition of UTF-8, without the code under test: some character begins before and ends behind."""
    for start in range(max(0, offset - 3), offset):
        for stop in range(offset + 1, min(len(data), start + 4) + 1):
            try:
                if len(data[start:stop].decode()) == 1:
                    return True
            except UnicodeDecodeError:
                continue
    return False


def text_of(prompt: Prompt, spans: tuple[tuple[int, int], ...]) -> str:
    return b"".join(piece for start, stop in spans for piece in prompt.pieces[start:stop]).decode()


def by_word(text: str, *, protected: tuple[tuple[int, int], ...] = ()) -> Prompt:
    """Tokens as byte-level BPE makes them: a space goes with the word behind it, a line end with the full stop."""
    pieces = tuple(piece.encode() for piece in re.findall(r" ?\w+| ?[^\w\s]+[\r\n]*|\s+", text))
    assert b"".join(pieces).decode() == text
    return Prompt(tuple(range(len(pieces))), pieces, protected)


def liking(prompt: Prompt, *words: str) -> np.ndarray:
    """Scores of 1 for the tokens in which one of the words occurs."""
    return np.array([float(any(word in piece.decode() for word in words)) for piece in prompt.pieces], np.float32)


@given(cases(), st.floats(0, 1, exclude_max=True))
def test_nothing_below_the_floor_is_kept_but_the_best_few(case: tuple[Prompt, np.ndarray, float], floor: float) -> None:
    prompt, scores, ratio = case
    if ratio == 1:
        return
    laid = layout(prompt.pieces)
    found = units(prompt, whole_characters(laid, prompt.protected), laid)
    values = sorted((float(importance(scores, unit)) for unit in found), reverse=True)
    best = max(values, default=0.0)
    # At least so much matters who is taken whatever the floor says; equals of the last of them are not told apart here.
    anyway = values[:LEAST_UNITS][-1] if values else 0.0
    kept = {token for start, stop in select(prompt, scores, ratio, floor) for token in range(start, stop)}
    for start, stop in found:
        # One or two tokens may be a joint, or what makes a character whole.
        if stop - start > 2 and kept.issuperset(range(start, stop)):
            assert float(importance(scores, (start, stop))) >= min(anyway, floor * max(best, 0.0))


def test_a_floor_leaves_out_what_is_beside_the_point_although_there_is_room_but_never_all_but_the_very_best() -> None:
    prompt = by_word(
        "Ada left.\nOslo paid two crowns.\nIt rained all day.\nOslo has a port.\nNobody came to see Oslo.\n"
        "Two ships left Oslo.\nSnow fell on the hills.\nIn Oslo it was cold.\n"
    )
    scores = liking(prompt, "Oslo") + np.float32(0.02)
    named = [line for line in b"".join(prompt.pieces).decode().splitlines(keepends=True) if "Oslo" in line]
    assert "rained" in text_of(prompt, select(prompt, scores, 0.9))
    assert text_of(prompt, select(prompt, scores, 0.9, 0.5)) == "".join(named)
    towering = scores + 50 * liking(prompt, "rained")
    kept = text_of(prompt, select(prompt, towering, 0.9, 0.5))
    assert "rained" in kept
    assert kept.count("Oslo") == LEAST_UNITS - 1
    assert select(prompt, scores, 0.9, 0.0) == select(prompt, scores, 0.9)
    with pytest.raises(ValueError, match="floor must be"):
        select(prompt, scores, 0.9, 1.0)


@given(cases())
def test_spans_are_in_order_disjoint_and_cover_what_is_protected(case: tuple[Prompt, np.ndarray, float]) -> None:
    prompt, scores, ratio = case
    kept = select(prompt, scores, ratio)
    assert all(start < stop for start, stop in kept)
    assert all(before[1] < after[0] for before, after in pairwise(kept)), "spans that meet are one"
    assert not kept or (kept[0][0] >= 0 and kept[-1][1] <= len(prompt.tokens))
    tokens = {token for start, stop in kept for token in range(start, stop)}
    assert all(token in tokens for start, stop in prompt.protected for token in range(start, stop))


@given(cases())
def test_no_character_is_cut(case: tuple[Prompt, np.ndarray, float]) -> None:
    prompt, scores, ratio = case
    data = b"".join(prompt.pieces)
    offsets = [sum(map(len, prompt.pieces[:edge])) for span in select(prompt, scores, ratio) for edge in span]
    assert not [offset for offset in offsets if is_inside_a_character(data, offset)]


@given(cases())
def test_no_more_is_kept_than_wished(case: tuple[Prompt, np.ndarray, float]) -> None:
    prompt, scores, ratio = case
    kept = sum(stop - start for start, stop in select(prompt, scores, ratio))
    # Whole characters may widen a protected span to its neighbours, and a gap between two may keep a joint.
    floor = sum(stop - start + 7 for start, stop in prompt.protected)
    assert kept <= max(math.floor(ratio * len(prompt.tokens) + 1e-9), floor)


@given(cases())
def test_the_same_again_and_whatever_the_scores_scale(case: tuple[Prompt, np.ndarray, float]) -> None:
    prompt, scores, ratio = case
    assert select(prompt, scores, ratio) == select(prompt, scores * np.float32(4), ratio)


@given(prompts())
def test_units_fill_what_is_not_protected(prompt: Prompt) -> None:
    laid = layout(prompt.pieces)
    found = units(prompt, (), laid)
    assert all(before[1] == after[0] for before, after in pairwise(found))
    assert sum(stop - start for start, stop in found) == len(prompt.tokens)
    # Larger only where characters, or white space at its end, could not be cut off.
    assert all(stop - start <= LARGEST or (laid.cuts[start + 6 : stop - 5] == Cut.NEVER).all() for start, stop in found)


@given(prompts())
def test_everything_is_kept_at_ratio_one(prompt: Prompt) -> None:
    kept = select(prompt, np.zeros(len(prompt.tokens), np.float32), 1.0)
    assert kept == (((0, len(prompt.tokens)),) if prompt.tokens else ())


LOG = (
    "412 Wim moved the valve.\n415 Ada fixed the pump.\n419 Bela sold the crate.\n423 Carl met Dina.\n\n"
    "Who fixed the pump?"
)


def test_whole_lines_are_kept_and_the_question_stays_a_paragraph_of_its_own() -> None:
    prompt = by_word(LOG)
    asked = len(prompt.tokens) - 5
    prompt = by_word(LOG, protected=((asked, asked + 5),))
    kept = select(prompt, liking(prompt, "Ada"), 0.4)
    # The full stops of the second line and of the last are tokens together with the line ends behind them.
    assert text_of(prompt, kept) == "415 Ada fixed the pump.\n\nWho fixed the pump?"


def test_sentences_of_one_line_are_chosen_apart() -> None:
    text = "The old dock stood empty all winter. In May the first ship came from Oslo. Nobody knew its name then."
    prompt = by_word(text)
    assert text_of(prompt, select(prompt, liking(prompt, "Oslo"), 0.5)) == " In May the first ship came from Oslo."


def test_abbreviations_and_numbers_end_no_sentence() -> None:
    prompt = by_word("Mr. Smith paid 3.14 crowns to Mrs. Jones. The weather was fine on that day.")
    assert text_of(prompt, select(prompt, liking(prompt, "crowns"), 0.7)).startswith("Mr. Smith paid 3.14 crowns")


def test_text_without_spaces_is_cut_at_its_own_full_stops() -> None:
    text = "阿达在南院修理了备用水泵。维姆把琥珀阀门搬到了北阁楼。贝拉以十二克朗卖掉了蓝色箱子。"
    prompt = Prompt(tuple(range(len(text))), tuple(character.encode() for character in text))
    kept = select(prompt, liking(prompt, "琥", "珀"), 0.4)
    assert text_of(prompt, kept) == "维姆把琥珀阀门搬到了北阁楼。"


def test_characters_in_several_tokens_stay_whole() -> None:
    data = "维姆搬走了阀门。阿达修好了水泵。".encode()
    prompt = Prompt(tuple(range(len(data))), tuple(bytes([byte]) for byte in data), ((1, 2),))
    scores = np.zeros(len(data), np.float32)
    scores[-1] = 1.0
    assert text_of(prompt, select(prompt, scores, 0.6)) == "维阿达修好了水泵。"


def test_code_is_cut_by_line() -> None:
    code = "def first(a, b):\n    return a + b\n\n\ndef second(a, b):\n    return a - b\n"
    prompt = by_word(code)
    kept = select(prompt, liking(prompt, "second", "-"), 0.7)
    assert "def second(a, b):" in text_of(prompt, kept)
    assert all(line in code.splitlines() for line in text_of(prompt, kept).splitlines())


def test_a_wrapped_sentence_is_one() -> None:
    text = (
        "The harbour master wrote in the evening that the grey\nlantern had been found below the pier.\n"
        "Nothing else was said about it on any of the days\nthat followed, as far as anybody knows.\n"
    )
    prompt = by_word(text)
    kept = text_of(prompt, select(prompt, liking(prompt, "lantern"), 0.55))
    assert kept == "The harbour master wrote in the evening that the grey\nlantern had been found below the pier.\n"


@pytest.mark.parametrize("text", ["x" * 3000, "a,b;" * 800, '{"k":[1,2]},' * 300, "| a | b " * 400, "word " * 900])
def test_a_very_long_line_is_cut_small_enough_to_choose_from(text: str) -> None:
    prompt = Prompt(tuple(range(len(text))), tuple(character.encode() for character in text))
    scores = np.zeros(len(text), np.float32)
    scores[2000] = 1.0
    kept = select(prompt, scores, 0.05)
    assert any(start <= 2000 < stop for start, stop in kept)
    assert 0.02 * len(text) < sum(stop - start for start, stop in kept) <= 0.05 * len(text)


def test_a_run_of_tokens_outweighs_scattered_ones() -> None:
    text = "The old man gave it to the other man by the old door.\nThen Wenceslas Okonkwo took all of it home again.\n"
    prompt = by_word(text)
    scores = liking(prompt, "old", "man", "door") + liking(prompt, "Wenceslas", "Okonkwo", "took", "all")
    assert importance(scores, (0, 14)) == pytest.approx(3 / 8)
    assert importance(scores, (14, 24)) == pytest.approx(4 / 8)
    assert importance(np.stack([scores, 0 * scores]), (14, 24)).tolist() == [0.5, 0.0]
    assert importance(scores, (14, 16)) == pytest.approx(0.5), "a shorter one is taken whole"


def test_words_never_run_together() -> None:
    text = "The first part stays just here. This sentence is left out now.\nThe second line stays here too."
    prompt = by_word(text)
    kept = text_of(prompt, select(prompt, liking(prompt, "first", "second"), 0.75))
    assert kept == "The first part stays just here.\nThe second line stays here too."


def test_a_joint_is_white_space_alone_where_the_gap_has_some() -> None:
    text = "The first part stays just here: yes. This one\nis left out *now*.\nThe second line stays here too."
    prompt = by_word(text)
    kept = text_of(prompt, select(prompt, liking(prompt, "first", "second"), 0.75))
    assert kept == "The first part stays just here: yes.\nThe second line stays here too."


@pytest.mark.parametrize(
    ("scores", "ratio", "protected", "said"),
    [
        (np.zeros(3, np.float32), 0.5, (), "shape"),
        (np.full(4, np.nan, np.float32), 0.5, (), "finite"),
        (np.zeros(4, np.float32), 0.0, (), "keep_ratio"),
        (np.zeros(4, np.float32), 1.5, (), "keep_ratio"),
        (np.zeros(4, np.float32), 0.5, ((2, 5),), "protected"),
        (np.zeros(4, np.float32), 0.5, ((2, 3), (1, 2)), "protected"),
        (np.zeros(4, np.float32), 0.5, ((2, 2),), "protected"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(
    scores: np.ndarray, ratio: float, protected: tuple[tuple[int, int], ...], said: str
) -> None:
    prompt = Prompt((1, 2, 3, 4), (b"a", b"b", b"c", b"d"), protected)
    with pytest.raises(ValueError, match=said):
        select(prompt, scores, ratio)
