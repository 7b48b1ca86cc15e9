"""Which versions are spoken, what a connection closes with, and who may try again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wire_protocol import CloseCode, ProtocolError, VersionError, close_reason, confirm, errors, may_retry, negotiate


def test_the_newest_version_that_both_speak_is_chosen() -> None:
    assert negotiate(1) == 1
    assert negotiate(2) == 2
    assert negotiate(3) == 3
    assert negotiate(65_535) == 3  # a newer client speaks every older version, down to its own oldest


def test_a_client_older_than_all_versions_is_told_to_update() -> None:
    with pytest.raises(VersionError, match="version 0 at most, this service 1 to 3: update the client"):
        negotiate(0)


def test_a_client_takes_only_a_version_that_it_speaks() -> None:
    assert confirm(1) == 1
    assert confirm(2) == 2
    assert confirm(3) == 3
    with pytest.raises(VersionError, match=r"chose version 4.*update the client"):
        confirm(4)
    with pytest.raises(VersionError, match=r"chose version 0.*update the service"):
        confirm(0)


@pytest.mark.parametrize(
    ("code", "retry"),
    [
        (None, True),
        (1000, False),
        (1001, True),
        (1002, False),
        (1003, False),
        (1006, True),
        (1007, False),
        (1008, False),
        (1009, False),
        (1011, True),
        (1012, True),  # restart: not ours, but a proxy may send it
        (1013, True),
        (3000, False),
        (4000, False),
        (4001, False),
        (4002, False),
        (4003, False),
        (4004, True),
        (4999, False),
    ],
)
def test_what_helps_to_try_again(code: int | None, retry: bool) -> None:
    assert may_retry(code) is retry


def test_codes_are_numbers_with_a_name_and_a_meaning() -> None:
    assert CloseCode.GOING_AWAY == 1001
    assert CloseCode(4004) is CloseCode.SLOW_READER
    for code in CloseCode:
        assert 1000 <= code <= 1013 or 4000 <= code <= 4999  # RFC 6455 §7.4.2
        assert code.meaning.endswith(".")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.WrongFrameError, 1003),
        (errors.MalformedError, 1007),
        (errors.InvalidMessageError, 1008),
        (errors.OutOfOrderError, 1008),
        (errors.MessageTooBigError, 1009),
        (errors.EncodeError, 1011),
        (errors.VersionError, 4002),
    ],
)
def test_every_error_closes_with_its_code(error: type[ProtocolError], code: int) -> None:
    assert error.close_code == code


@given(text=st.text())
def test_a_reason_fits_a_close_frame(text: str) -> None:
    reason = close_reason(text)
    encoded = reason.encode()
    assert len(encoded) <= 123
    readable = text.encode(errors="replace").decode()
    assert readable.startswith(reason)
    assert len(readable.encode()) <= 123 or len(encoded) >= 120  # no more is cut than a character of four bytes


def test_reasons_are_cut_between_characters() -> None:
    assert close_reason("€" * 100) == "€" * 41
