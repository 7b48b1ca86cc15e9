"""Every message survives both codecs, and travels only in its own direction."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given, settings

from wire_protocol import (
    SUBPROTOCOLS,
    CloudMessage,
    Codec,
    DeviceMessage,
    EncodeError,
    InvalidMessageError,
    JsonCodec,
    MessagePackCodec,
    SubprotocolError,
    WrongFrameError,
    choose_subprotocol,
    codec_for,
)
from wire_protocol.messages import ChatMessage, Draining, Error, Extend, Generate, Hello, Rejected, Sampling, Tokens
from wire_protocol.testing import cloud_messages, device_messages

CODECS = pytest.mark.parametrize("codec", [MessagePackCodec(), JsonCodec()], ids=lambda codec: codec.subprotocol)


@CODECS
@given(message=device_messages())
def test_what_a_device_sends_arrives_equal(codec: Codec, message: DeviceMessage) -> None:
    assert codec.decode_device(codec.encode(message)) == message


@CODECS
@given(message=cloud_messages())
def test_what_a_cloud_sends_arrives_equal(codec: Codec, message: CloudMessage) -> None:
    assert codec.decode_cloud(codec.encode(message)) == message


@CODECS
@settings(max_examples=30)
@given(device=device_messages(), cloud=cloud_messages())
def test_messages_of_the_other_direction_are_refused(codec: Codec, device: DeviceMessage, cloud: CloudMessage) -> None:
    with pytest.raises(InvalidMessageError, match="other direction"):
        codec.decode_cloud(codec.encode(device))
    with pytest.raises(InvalidMessageError, match="other direction"):
        codec.decode_device(codec.encode(cloud))


def test_messagepack_is_read_by_any_messagepack_library_and_json_by_any_json_library() -> None:
    message = Tokens("g", 3, count=2, data=b"\xe2\x82")
    expected = {"type": "tokens", "id": "g", "first": 3, "count": 2}
    assert msgspec.msgpack.decode(MessagePackCodec().encode(message)) == {**expected, "data": b"\xe2\x82"}
    assert json.loads(JsonCodec().encode(message)) == {**expected, "data": "4oI="}


def test_fields_at_their_default_do_not_travel() -> None:
    message = Generate("g", 8, prompt=(1, 2), sampling=Sampling(temperature=0.5))
    assert json.loads(JsonCodec().encode(message)) == {
        "type": "generate",
        "id": "g",
        "grant": 8,
        "prompt": [1, 2],
        "sampling": {"temperature": 0.5},
    }


def test_whole_numbers_are_numbers_and_fractions_are_not_whole() -> None:
    """JavaScript writes 5.0 as 5."""
    codec = JsonCodec()
    assert codec.decode_cloud('{"type":"draining","in_ms":5}') == Draining(5.0)
    with pytest.raises(InvalidMessageError, match=r"\$\.grant"):
        codec.decode_device('{"type":"extend","id":"g","grant":5.0}')


def test_the_other_kind_of_frame_is_refused() -> None:
    with pytest.raises(WrongFrameError, match="binary frames"):
        MessagePackCodec().decode_device('{"type":"extend","id":"g","grant":5}')
    with pytest.raises(WrongFrameError, match="text frames"):
        JsonCodec().decode_cloud(b'{"type":"draining","in_ms":5}')


@CODECS
@pytest.mark.parametrize(
    ("message", "named"),
    [
        (Extend("g", -1), r"\$\.grant"),
        (Extend("two words", 1), r"\$\.id"),
        (Draining(float("nan")), r"\$\.in_ms"),
        (Draining(float("inf")), r"\$\.in_ms"),
        (Rejected("g", "busy", "x" * 2_001), r"\$\.message"),
        (Generate("g", 1, prompt=(2**31,)), r"\$\.prompt\[0\]"),
        (Hello(2**70, "c"), "version|ints"),
        (Hello(1, "\ud800"), "Hello"),
        (Error("g", "oops", "m"), r"\$\.code"),  # type: ignore[arg-type]
        (Tokens("g", 0, ids=(-1,)), r"\$\.ids\[0\]"),
        (Tokens("g", 0, ids=(2**31,)), r"\$\.ids\[0\]"),
        (Tokens("g", 0, ids=(True,)), r"\$\.ids\[0\]"),
        (Tokens("g", 0, ids=(1,), count=None), r"\$\.count"),  # type: ignore[arg-type]
        (Tokens("g", 0, ids=(1, -1)), r"\$\.ids\[1\]"),
        (Tokens("g", 2**31, ids=(1,)), r"\$\.first"),
        (Tokens("two words", 0, ids=(1,)), r"\$\.id"),
        (Tokens("g" * 65, 0, ids=(1,)), r"\$\.id"),
    ],
)
def test_what_the_peer_would_refuse_is_not_sent(
    codec: Codec, message: DeviceMessage | CloudMessage, named: str
) -> None:
    with pytest.raises(EncodeError, match=named):
        codec.encode(message)


def test_a_message_too_big_for_a_frame_is_not_sent() -> None:
    prompt = tuple(range(10**9, 10**9 + 999_999))
    assert MessagePackCodec().encode(Generate("g", 1, prompt=prompt))
    text = "€" * 8_000_000
    with pytest.raises(EncodeError, match="at most 16777216"):
        MessagePackCodec().encode(Generate("g", 1, output_text=text, messages=(ChatMessage("user", "hi"),)))


def test_the_service_prefers_messagepack() -> None:
    assert SUBPROTOCOLS == ("pd.v1", "pd.v1+json")
    assert choose_subprotocol(["pd.v1+json", "pd.v1"]) == "pd.v1"
    assert choose_subprotocol(["graphql-ws", "pd.v1+json"]) == "pd.v1+json"
    assert choose_subprotocol(["graphql-ws"]) is None
    assert choose_subprotocol([]) is None
    assert isinstance(codec_for("pd.v1"), MessagePackCodec)
    assert isinstance(codec_for("pd.v1+json"), JsonCodec)


@pytest.mark.parametrize("subprotocol", [None, "", "pd.v2", "PD.V1"])
def test_an_unknown_subprotocol_has_no_codec(subprotocol: str | None) -> None:
    with pytest.raises(SubprotocolError, match=r"expected one of pd\.v1, pd\.v1\+json"):
        codec_for(subprotocol)
