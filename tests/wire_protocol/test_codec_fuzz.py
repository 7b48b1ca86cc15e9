"""No frame makes a decoder raise anything but DecodeError."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from wire_protocol import CloudMessage, Codec, DecodeError, DeviceMessage, JsonCodec, MessagePackCodec
from wire_protocol.testing import cloud_messages, device_messages

MESSAGEPACK, JSON = MessagePackCodec(), JsonCodec()

_KEYS = st.sampled_from(
    ["type", "id", "grant", "prompt", "messages", "sampling", "seed", "refine", "keep", "data", "usage", "limits", "x"]
)
_TAGS = st.sampled_from(["hello", "generate", "progress", "extend", "stop", "welcome", "refinement", "tokens", "error"])
_LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=9)
    | st.binary(max_size=9)
    | _TAGS
)
#: Anything that MessagePack or JSON can say, near the protocol's own words.
_VALUES = st.recursive(
    _LEAVES,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(_KEYS | st.text(max_size=3), inner, max_size=5)
        | st.builds(lambda tag, fields: {"type": tag, **fields}, _TAGS, st.dictionaries(_KEYS, inner, max_size=5))
    ),
    max_leaves=12,
)


def decode(codec: Codec, frame: bytes | str) -> list[DeviceMessage | CloudMessage]:
    """Decode in both directions; what is no message must be a DecodeError."""
    decoded: list[DeviceMessage | CloudMessage] = []
    for side in (codec.decode_device, codec.decode_cloud):
        try:
            decoded.append(side(frame))
        except DecodeError as error:
            assert 0 < len(str(error)) < 2_000  # noqa: PT017 - fits the message of an `error`
    return decoded


@given(frame=st.binary(max_size=200) | st.text(max_size=200))
@example(frame=b"")
@example(frame="")
@example(frame="\ud800")
def test_arbitrary_bytes(frame: bytes | str) -> None:
    assert not decode(MESSAGEPACK, frame) or isinstance(frame, bytes)
    assert not decode(JSON, frame) or isinstance(frame, str)


@given(value=_VALUES)
def test_arbitrary_values_in_valid_encodings(value: Any) -> None:
    decode(MESSAGEPACK, msgspec.msgpack.encode(value))
    decode(JSON, msgspec.json.encode(value).decode())


@given(data=st.data(), message=device_messages() | cloud_messages())
def test_mutated_frames(data: st.DataObject, message: DeviceMessage | CloudMessage) -> None:
    """What still decodes after a change is a valid message: it encodes, and comes back equal."""
    frame = bytearray(MESSAGEPACK.encode(message))
    text = list(JSON.encode(message))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(frame) - 1))
        end = at + data.draw(st.integers(0, 4))
        frame[at:end] = data.draw(st.binary(max_size=4) | st.just(bytes(frame[:end])))
        at = data.draw(st.integers(0, len(text) - 1))
        end = at + data.draw(st.integers(0, 4))
        text[at:end] = data.draw(st.text('[]{}",:.-0123456789eEntf\\ u', max_size=4) | st.just("".join(text[:end])))
        if not frame or not text:
            break
    for decoded in decode(MESSAGEPACK, bytes(frame)):
        assert decode(MESSAGEPACK, MESSAGEPACK.encode(decoded)) == [decoded]
    for decoded in decode(JSON, "".join(text)):
        assert decode(JSON, JSON.encode(decoded)) == [decoded]


@given(message=device_messages() | cloud_messages(), cut=st.floats(0, 1, exclude_max=True))
def test_truncated_frames_are_no_messages(message: DeviceMessage | CloudMessage, cut: float) -> None:
    frame, text = MESSAGEPACK.encode(message), JSON.encode(message)
    assert decode(MESSAGEPACK, frame[: int(cut * len(frame))]) == []
    assert decode(JSON, text[: int(cut * len(text))]) == []


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(b"\x91" * 1_000_000, id="lists in lists"),
        pytest.param(b"\x81\xa1a" + b"\x91" * 1_000_000, id="lists in an unknown field before the type"),
        pytest.param(b"\x82\xa4type\xa6extend\xa1a" + b"\x91" * 1_000_000, id="lists in an unknown field"),
        pytest.param(b"\x81\xa1a" * 1_000_000, id="maps in maps"),
        pytest.param(b"\x82\xa4type\xa8generate\xa6prompt\xdd\xff\xff\xff\xff", id="a list that claims 2^32 values"),
        pytest.param(
            b"\x82\xa4type\xa8generate\xa6prompt\xdd\x00\x0f\x42\x40", id="a list that claims the most allowed"
        ),
        pytest.param(b"\xdf\xff\xff\xff\xff", id="a map that claims 2^32 fields"),
        pytest.param(b"\x82\xa4type\xa5hello\xa6client\xdb\xff\xff\xff\xff", id="a text that claims 2^32 bytes"),
        pytest.param(b"\xc7\x04\x01abcd", id="an extension type"),
        pytest.param(b"\xd6\xff\x00\x00\x00\x00", id="a timestamp"),
        pytest.param(b"\xc1", id="the byte that MessagePack never uses"),
        pytest.param(b"\x00" * (16 * 1024 * 1024 + 1), id="more than the largest message"),
        pytest.param(b"\x83\xa4type\xa4stop\xa6reason\xa4what\xa2id\xa1\xff", id="a bad choice, then no UTF-8"),
        pytest.param('{"type":"stop","reason":"what","id":[]}', id="a bad choice, then an id that is none"),
        pytest.param('{"type":[{}],"id":{}}', id="a type that is a list"),
        pytest.param("[" * 1_000_000, id="JSON lists in lists"),
        pytest.param('{"a":' * 1_000_000, id="JSON objects in objects"),
        pytest.param('{"type":"extend","id":"g","grant":' + "9" * 100_000 + "}", id="a huge integer"),
        pytest.param('{"type":"draining","in_ms":' + "9" * 100_000 + "}", id="a huge number"),
        pytest.param('{"type":"draining","in_ms":1e999999999}', id="a huge exponent"),
        pytest.param('{"type":"draining","in_ms":NaN}', id="not a number"),
        pytest.param('{"type":"draining","in_ms":-Infinity}', id="minus infinity"),
        pytest.param('{"type":"hello","version":1,"client":"\\ud800"}', id="an escaped lone surrogate"),
        pytest.param('{"type":"hello","version":1,"client":"\\udc00x"}', id="an escaped low surrogate"),
        pytest.param('{"type":"hello","version":1,"client":"\ud800"}', id="a lone surrogate"),
        pytest.param('{"type":"hello","version":1,"client":"\x00"}', id="a control character"),
        pytest.param('{"type":"extend","id":"g","grant":1} {}', id="something after the end"),
        pytest.param("\ufeff{}", id="a byte order mark"),
    ],
)
def test_hostile_frames(frame: bytes | str) -> None:
    assert decode(MESSAGEPACK if isinstance(frame, bytes) else JSON, frame) == []
