"""What leaves of an answer, and when."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from cloud_service.scheduler.jobs import Job
from cloud_service.scheduler.output import Output
from model_runtime.sampling import SamplingParams
from model_runtime.testing import ScriptedTokenizer

#: The machine may be busy; what is checked does not depend on time.
QUICK = settings(deadline=None, max_examples=50)

TOKENIZER = ScriptedTokenizer()


def job(*, stop: tuple[str, ...] = (), output: tuple[int, ...] = (), text: bool = True) -> Job:
    return Job("t", (1,), output, 100, SamplingParams(), stop, wants_text=text)


def until_first(text: str, stops: tuple[str, ...]) -> tuple[str, bool]:
    """The text before the stop string that is complete first (of two at once, the longer)."""
    for end in range(1, len(text) + 1):
        begins = [end - len(stop) for stop in stops if text[:end].endswith(stop)]
        if begins:
            return text[: min(begins)], True
    return text, False


texts = st.text(st.sampled_from("abé東✓ "), max_size=30)
stop_strings = st.lists(st.text(st.sampled_from("abé東✓ "), min_size=1, max_size=4), max_size=3).map(tuple)


@QUICK
@given(texts, stop_strings)
def test_text_is_everything_before_the_first_stop_string_however_bytes_are_split(
    text: str, stops: tuple[str, ...]
) -> None:
    output = Output(job(stop=stops), TOKENIZER)
    sent = b""
    for fed, token in enumerate(text.encode(), start=1):  # a token for each byte: characters are split
        emitted = output.push(token)
        if emitted is not None:
            assert emitted.data
            assert emitted.first + len(emitted.ids) <= fed
            sent += emitted.data
        if output.stopped:
            break
    rest = output.end()
    sent += rest.data if rest is not None else b""
    assert (sent.decode(), output.stopped) == until_first(text, stops)


@QUICK
@given(texts, texts, stop_strings)
def test_a_stop_string_that_began_in_the_answer_so_far_is_found(
    before: str, after: str, stops: tuple[str, ...]
) -> None:
    whole, stopped = until_first(before + after, stops)
    if until_first(before, stops)[1]:
        assert Output(job(stop=stops, output=tuple(before.encode())), TOKENIZER).stopped
        return
    output = Output(job(stop=stops, output=tuple(before.encode())), TOKENIZER)
    sent = b""
    for token in after.encode():
        emitted = output.push(token)
        sent += emitted.data if emitted is not None else b""
        if output.stopped:
            break
    rest = output.end()
    sent += rest.data if rest is not None else b""
    assert output.stopped == stopped
    assert sent == whole.encode()[len(before.encode()) :]


@QUICK
@given(texts, stop_strings)
def test_messages_are_consecutive(text: str, stops: tuple[str, ...]) -> None:
    output = Output(job(stop=stops), TOKENIZER)
    expected = 0
    for token in text.encode():
        emitted = output.push(token)
        if emitted is not None:
            assert emitted.first == expected
            expected += len(emitted.ids)
        if output.stopped:
            break


def test_where_ids_are_wanted_every_token_leaves_at_once_and_the_stop_string_is_noticed() -> None:
    output = Output(job(stop=("ab",), text=False), TOKENIZER)
    assert [output.push(token).ids for token in b"xa"] == [(120,), (97,)]
    assert not output.stopped
    last = output.push(98)
    assert (last.ids, last.data, output.stopped) == ((98,), b"", True)


def test_without_a_stop_string_half_a_character_leaves_too() -> None:
    output = Output(job(), TOKENIZER)
    assert [output.push(token).data for token in "é".encode()] == [b"\xc3", b"\xa9"]


def test_a_token_without_text_is_counted_with_the_next_one_that_has_some() -> None:
    output = Output(job(), TOKENIZER)
    assert output.push(TOKENIZER.im_start) is None
    emitted = output.push(97)
    assert (emitted.first, emitted.ids, emitted.data) == (0, (TOKENIZER.im_start, 97), b"a")
