from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_runtime.text import StopStrings, TextAssembler

#: Bytes of which many are parts of characters, whole, cut short or out of place.
CHUNKS = st.lists(st.sampled_from([*"aé—🙂日".encode(), *(bytes([b]) for b in b"\x80\xc3\xe2\xf0\xff")]) | st.binary())


def as_bytes(parts: list[bytes | int]) -> list[bytes]:
    return [bytes([part]) if isinstance(part, int) else part for part in parts]


@settings(deadline=None)
@given(parts=CHUNKS)
def test_any_split_of_any_bytes_gives_the_same_text(parts: list[bytes | int]) -> None:
    pieces = as_bytes(parts)
    assembler = TextAssembler()
    text = "".join(assembler.push(piece) for piece in pieces) + assembler.flush()
    assert text == b"".join(pieces).decode("utf-8", errors="replace")


@settings(deadline=None)
@given(text=st.text(), cut=st.integers(0, 50))
def test_only_whole_characters_are_given_out(text: str, cut: int) -> None:
    data = text.encode()
    assembler = TextAssembler()
    first = assembler.push(data[:cut])
    assert text.startswith(first)
    assert "\ufffd" not in first or "\ufffd" in text
    assert first + assembler.push(data[cut:]) == text
    assert assembler.flush() == ""


def test_after_a_flush_a_new_text_begins() -> None:
    assembler = TextAssembler()
    assert assembler.push(b"a\xe2\x82") == "a"
    assert assembler.flush() == "\ufffd"
    assert assembler.push(b"\xac") == "\ufffd"


WORDS = st.text(alphabet="ab", min_size=1, max_size=4)


def cut_at_first_stop(text: str, stops: list[str]) -> str | None:
    """By definition: the shortest beginning that ends with a stop string, without the longest one it ends with."""
    for end in range(len(text) + 1):
        found = [stop for stop in stops if text[:end].endswith(stop)]
        if found:
            return text[: end - len(max(found, key=len))]
    return None


@settings(deadline=None)
@given(parts=st.lists(st.text(alphabet="abc", max_size=4)), stops=st.lists(WORDS, max_size=3))
def test_stops_are_found_however_the_text_is_split(parts: list[str], stops: list[str]) -> None:
    expected = cut_at_first_stop("".join(parts), stops)
    stopper = StopStrings(stops)
    shown, hit = "", False
    for part in parts:
        safe, hit = stopper.push(part)
        shown += safe
        if hit:
            break
    if expected is None:
        assert not hit
        assert shown + stopper.flush() == "".join(parts)
    else:
        assert hit
        assert shown == expected


@settings(deadline=None)
@given(text=st.text(alphabet="abc", max_size=12), stops=st.lists(WORDS, min_size=1, max_size=3))
def test_no_more_is_held_back_than_may_become_a_stop(text: str, stops: list[str]) -> None:
    stopper = StopStrings(stops)
    shown, hit = stopper.push(text)
    if not hit:
        held = text[len(shown) :]
        assert text.startswith(shown)
        assert held == "" or any(stop.startswith(held) and stop != held for stop in stops)


def test_after_a_hit_nothing_more_is_shown() -> None:
    stopper = StopStrings(["END"])
    assert stopper.push("one EN") == ("one ", False)
    assert stopper.push("D two") == ("", True)
    assert stopper.push("three") == ("", True)
    assert stopper.flush() == ""


def test_an_empty_stop_string_is_refused() -> None:
    with pytest.raises(ValueError, match="must not be empty"):
        StopStrings(["a", ""])
