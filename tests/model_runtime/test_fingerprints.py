from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_runtime.fingerprints import looks_special, template_fingerprint, tokenizer_fingerprint

ENTRIES = st.lists(st.tuples(st.binary(max_size=4), st.booleans()), max_size=6)


def meaning(entries: list[tuple[bytes, bool]]) -> list[tuple[bytes, bool]]:
    """What the fingerprint is of: all but ids at the end that stand for nothing."""
    while entries and entries[-1] == (b"", False):
        entries = entries[:-1]
    return entries


@given(first=ENTRIES, second=ENTRIES)
def test_equal_exactly_for_equal_vocabularies(
    first: list[tuple[bytes, bool]], second: list[tuple[bytes, bool]]
) -> None:
    same = tokenizer_fingerprint(first) == tokenizer_fingerprint(second)
    assert same == (meaning(first) == meaning(second))


@given(entries=ENTRIES, padding=st.integers(0, 5))
def test_padding_at_the_end_changes_nothing(entries: list[tuple[bytes, bool]], padding: int) -> None:
    assert tokenizer_fingerprint([*entries, *[(b"", False)] * padding]) == tokenizer_fingerprint(entries)


def test_a_gap_in_the_middle_counts() -> None:
    assert tokenizer_fingerprint([(b"a", False), (b"b", False)]) != tokenizer_fingerprint(
        [(b"a", False), (b"", False), (b"b", False)]
    )


def test_special_and_ordinary_tokens_of_the_same_text_differ() -> None:
    assert tokenizer_fingerprint([(b"<s>", True)]) != tokenizer_fingerprint([(b"<s>", False)])


def test_the_value_is_fixed() -> None:
    """Two sides compare fingerprints over the wire, so a release must not change them."""
    assert tokenizer_fingerprint([(b"a", False), (b"<s>", True)]) == (
        "5aa22ffc1ca4c850c85d45b03b6bc02c0fe958ec04a571c4d37973e5a61813f1"
    )
    assert template_fingerprint(None) == "1304107d0136e0fbea9ae3324c2d8f8fea50b7d2c9a891c9e8196102efec3ad3"
    assert template_fingerprint("{{ x }}") == "b566541093f806700829e584d1ea3cc2194ec4c1e188905b1e8cd44f2af99f5b"


def test_templates_are_compared_as_jinja_reads_them() -> None:
    assert template_fingerprint("a\r\nb\n") == template_fingerprint("a\nb")
    assert template_fingerprint("a\nb\n\n") != template_fingerprint("a\nb")
    assert template_fingerprint("") != template_fingerprint(None)


@pytest.mark.parametrize(
    ("text", "special"),
    [
        ("<|im_end|>", True),
        ("<｜User｜>", True),
        ("<unused12>", True),
        ("<pad>", True),
        ("<think>", False),
        ("<tool_call>", False),
        ("  ", False),
        ("a<|b|>", False),
    ],
)
def test_which_added_tokens_count_as_special(text: str, special: bool) -> None:
    assert looks_special(text) is special
