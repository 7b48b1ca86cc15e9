"""Markdown that streams and keeps who said which word."""

from __future__ import annotations

import html
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from demos.chat.history.records import Run
from demos.chat.history.store import extend
from demos.chat.viewmodel.markdown import HAND_OVER, Block, Code, MarkdownStream, Prose
from device_sdk import Source

PIECES = st.sampled_from(
    [
        "word", "**bold**", "`code`", " ", "\n", "\n\n", "- item\n", "1. first\n", "```py\nx = 1\n```\n", "# Title\n",
        "412 a", "[link](http://example.org/a)", "| a | b |\n|---|---|\n| 1 | 2 |\n", "> quoted\n", "<b>raw</b>",
        "&amp;", "東京", "*", "_", "~~~\n", "    indented\n", "---\n", "![x](file:///etc/passwd)",
        "\u2028", "\x0c", "\r\n",
    ]
)  # fmt: skip
SAID = st.lists(st.tuples(st.sampled_from(list(Source)), PIECES), max_size=24)


def text_of(blocks: list[Block]) -> str:
    """What is read, without tags, marks and white space."""
    parts = "".join(block.html for block in blocks)
    plain = re.sub(r"<[^>]*>", "", parts.replace(HAND_OVER, ""))
    return "".join(html.unescape(plain).split())


def joined(said: list[tuple[Source, str]]) -> tuple[str, list[Run]]:
    text, runs = "", list[Run]()
    for source, piece in said:
        text = extend(text, runs, source, piece)
    return text, runs


@given(SAID)
def test_who_said_it_changes_no_word(said: list[tuple[Source, str]]) -> None:
    text, runs = joined(said)
    plain = MarkdownStream().update(text, ())
    coloured = MarkdownStream().update(text, runs)
    assert text_of(coloured) == text_of(plain)
    assert [type(block) for block in coloured] == [type(block) for block in plain]
    assert [block.text for block in coloured if isinstance(block, Code)] == [
        block.text for block in plain if isinstance(block, Code)
    ]
    assert not re.search("[\ue000\ue001]|%EE%80%8", repr(coloured))


@given(SAID)
def test_a_stream_ends_as_the_whole_text_would_begin(said: list[tuple[Source, str]]) -> None:
    stream, text, runs = MarkdownStream(), "", list[Run]()
    blocks: list[Block] = []
    for source, piece in said:
        text = extend(text, runs, source, piece)
        blocks = stream.update(text, runs)
    assert text_of(blocks) == text_of(MarkdownStream().update(text, runs))


def test_the_words_of_each_side_have_its_colour_and_the_hand_over_is_marked_once() -> None:
    text, runs = joined([(Source.CLOUD, "The gate **was "), (Source.DEVICE, "locked** by Mira.")])
    [block] = MarkdownStream().update(text, runs)
    assert isinstance(block, Prose)
    assert block.html.count(HAND_OVER) == 1
    before, after = block.html.split(HAND_OVER)
    assert 'class="cloud"' in before
    assert 'class="device"' not in before
    assert re.findall(r'<span class="(\w+)">', after) == ["device", "device"]
    assert "<strong>" in block.html


def test_the_colour_goes_on_behind_what_was_drawn_before() -> None:
    stream = MarkdownStream()
    text, runs = joined([(Source.CLOUD, "One.\n\n"), (Source.DEVICE, "Two.\n\n")])
    stream.update(text, runs)
    text = extend(text, runs, Source.DEVICE, "Three.\n\nFour.")
    [block] = stream.update(text, runs)
    assert re.findall(r'<span class="(cloud|device)">([^<]*)', block.html) == [
        ("cloud", "One."),
        ("device", "Two."),
        ("device", "Three."),
        ("device", "Four."),
    ]


@pytest.mark.parametrize(
    ("text", "forbidden"),
    [
        ("<script>alert(1)</script>", "<script"),
        ("<img src='file:///etc/passwd'>", "<img"),
        ("![x](http://example.org/track.png)", "<img"),
        ("[x](javascript:alert(1))", 'href="javascript'),
    ],
)
def test_what_a_model_says_is_shown_and_never_obeyed(text: str, forbidden: str) -> None:
    [block] = MarkdownStream().update(text, ())
    assert forbidden not in block.html


def test_code_keeps_its_language_and_its_text() -> None:
    text, runs = joined([(Source.CLOUD, "```python\nif a < b:\n    pri"), (Source.DEVICE, "nt(a & b)\n```")])
    [block] = MarkdownStream().update(text, runs)
    assert isinstance(block, Code)
    assert (block.language, block.text) == ("python", "if a < b:\n    print(a & b)\n")
    assert "&lt;" in block.html


def test_a_long_answer_is_cut_into_pieces_so_that_its_end_is_quick_to_draw() -> None:
    blocks = MarkdownStream().update("A paragraph of some words.\n\n" * 1_000, ())
    assert len(blocks) > 3
    assert max(len(block.html) for block in blocks) < 8_000


def test_a_single_line_break_is_kept() -> None:
    (block,) = MarkdownStream().update("Job K47-1/2: one.\nJob K47-2/2 done: two.", [])
    assert isinstance(block, Prose)
    assert "one.<br />" in block.html
