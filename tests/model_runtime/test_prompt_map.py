"""Characters of a chat and tokens of its prompt: there and back, whatever the tokenizer."""

from __future__ import annotations

from itertools import accumulate, pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_runtime.core import Message, Tokenizer
from model_runtime.prompt_map import PromptMap, prompt_map
from model_runtime.testing import ScriptedTokenizer
from model_runtime.tokenizers import load_tokenizer

BUNDLED = Path(__file__).parents[2] / "demos" / "models"
TEXT = "The crew at the north gate, 東京 and the café.\n\nWho was it? ✓"
CHARACTERS = st.text(st.sampled_from("ab é東✓\n. "), max_size=40)


def mapped(tokenizer: Tokenizer, *contents: str) -> tuple[PromptMap, list[bytes]]:
    roles = ["system", *["user", "assistant"] * len(contents)] if len(contents) > 1 else ["user"]
    messages = [Message(role=role, content=content) for role, content in zip(roles, contents, strict=False)]
    pieces = [tokenizer.token_bytes(token) for token in tokenizer.render_chat(messages)]
    found = prompt_map(messages, pieces)
    assert found is not None
    return found, pieces


@pytest.mark.parametrize("name", ["scripted", "device", "device-alt"])
def test_the_content_tokens_spell_the_contents(name: str) -> None:
    tokenizer = ScriptedTokenizer() if name == "scripted" else load_tokenizer(BUNDLED / name)
    contents = ("Answer briefly.", TEXT, "Ada.", "And then?")
    found, pieces = mapped(tokenizer, *contents)
    for (start, end), content in zip(found.contents, contents, strict=True):
        assert b"".join(pieces[start:end]).decode() in content
        assert (
            len(b"".join(pieces[start:end])) >= len(content.encode()) - 8
        )  # a token over the border is the template's
    assert found.contents[0][1] < found.contents[1][0] < found.contents[1][1] < found.contents[2][0]
    assert found.characters == sum(map(len, contents))
    assert found.messages[-1] == (found.characters - len(contents[-1]), found.characters)


@given(before=CHARACTERS, wanted=CHARACTERS.filter(bool), after=CHARACTERS)
@settings(deadline=None)
def test_a_span_of_characters_is_covered_by_its_tokens_and_by_no_others(before: str, wanted: str, after: str) -> None:
    content = "x" + before + wanted + after + "x"
    found, pieces = mapped(ScriptedTokenizer(), content)
    span = (1 + len(before), 1 + len(before) + len(wanted))
    ((first, last),) = found.tokens_of([span])
    text = b"".join(pieces)
    begin = text.index(content.encode()) + len(("x" + before).encode())
    end = begin + len(wanted.encode())
    borders = [0, *accumulate(map(len, pieces))]
    assert borders[first] <= begin < borders[first + 1]
    assert borders[last - 1] < end <= borders[last]
    ((start, end),) = found.characters_of([(first, last)])
    assert start <= span[0]
    assert end >= span[1]


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)).map(sorted).map(tuple), max_size=6))
def test_spans_in_any_order_come_back_in_order_and_disjoint(spans: list[tuple[int, int]]) -> None:
    found, _ = mapped(ScriptedTokenizer(), TEXT)
    tokens = found.tokens_of(spans)
    assert all(a < b for a, b in tokens)
    assert all(a[1] < b[0] for a, b in pairwise(tokens))
    assert found.tokens_of(found.characters_of(tokens)) == tokens


def test_what_a_template_trims_stands_for_no_token() -> None:
    message = Message(role="user", content="  Who?\n")
    found = prompt_map([message], [b"user\n", b"Who", b"?", b"\n"])
    assert found is not None
    assert found.contents == ((1, 3),)
    assert found.tokens_of([(2, 5)]) == ((1, 2),)
    assert found.characters_of([(1, 3)]) == ((2, 6),)


def test_contents_that_are_not_in_the_prompt_have_no_map() -> None:
    messages = [Message(role="user", content="cafe\u0301 noir")]
    assert prompt_map(messages, [b"user\n", "caf\u00e9 noir".encode()]) is None


def test_a_span_beyond_the_contents_is_named() -> None:
    found, _ = mapped(ScriptedTokenizer(), "Who?")
    with pytest.raises(ValueError, match="3…9 is not within 0…4"):
        found.tokens_of([(3, 9)])
