"""What is refused, and that the error says where and what was expected."""

from __future__ import annotations

import json
from typing import Any, get_args

import msgspec
import pytest

from wire_protocol import (
    CloseCode,
    CloudMessage,
    Codec,
    DeviceMessage,
    InvalidMessageError,
    JsonCodec,
    MalformedError,
    MessagePackCodec,
    MessageTooBigError,
)

CODECS = pytest.mark.parametrize("codec", [MessagePackCodec(), JsonCodec()], ids=lambda codec: codec.subprotocol)
KINDS = (*get_args(DeviceMessage), *get_args(CloudMessage))

GENERATE = {"type": "generate", "id": "g", "grant": 8, "prompt": [1, 2, 3]}
CHAT = {"type": "generate", "id": "g", "grant": 8, "messages": [{"role": "user", "content": "four"}]}
TOKENS = {"type": "tokens", "id": "g", "first": 0}


def decode(codec: Codec, value: Any) -> DeviceMessage | CloudMessage:
    frame = (
        msgspec.msgpack.encode(value) if isinstance(codec, MessagePackCodec) else msgspec.json.encode(value).decode()
    )
    tag = value.get("type") if isinstance(value, dict) else None
    of_cloud = any(kind.__struct_config__.tag == tag for kind in get_args(CloudMessage))
    return codec.decode_cloud(frame) if of_cloud else codec.decode_device(frame)


@CODECS
@pytest.mark.parametrize(
    ("value", "path", "expected"),
    [
        # the message itself
        ([], "$", "Expected `object`, got `array`"),
        ({}, "$.type", "expected one of hello, generate, progress, extend, stop"),
        ({"type": "goodbye"}, "$.type", "expected one of hello, generate, progress, extend, stop"),
        ({"type": "welcome"}, "$.version", "missing"),
        ({"type": 5}, "$.type", "Expected `str`"),
        # fields
        ({"type": "stop", "id": "g"}, "$.reason", "missing"),
        ({"type": "stop", "id": "g", "reason": "cancelled", "why": "?"}, "$.why", "unknown field"),
        ({"type": "stop", "id": "g", "reason": "bored"}, "$.reason", "expected one of cancelled, taken_over"),
        ({"type": "stop", "id": None, "reason": "cancelled"}, "$.id", "Expected `str`, got"),
        ({"type": "stop", "id": "", "reason": "cancelled"}, "$.id", "length >= 1"),
        ({"type": "stop", "id": "g" * 65, "reason": "cancelled"}, "$.id", "length <= 64"),
        ({"type": "stop", "id": "g\n", "reason": "cancelled"}, "$.id", "regex"),
        ({"type": "stop", "id": "a b", "reason": "cancelled"}, "$.id", "regex"),
        ({"type": "hello", "version": 0, "client": "c"}, "$.version", ">= 1"),
        ({"type": "hello", "version": True, "client": "c"}, "$.version", "got `bool`"),
        ({"type": "hello", "version": 1, "client": "c" * 257}, "$.client", "length <= 256"),
        ({"type": "extend", "id": "g", "grant": 100_001}, "$.grant", "<= 100000"),
        ({"type": "extend", "id": "g", "grant": "8"}, "$.grant", "got `str`"),
        ({"type": "draining", "in_ms": -1}, "$.in_ms", ">= 0"),
        ({"type": "draining", "in_ms": 2e9}, "$.in_ms", "<= 1000000000"),
        ({"type": "error", "id": "g", "code": "internal", "message": "m" * 2_001}, "$.message", "length <= 2000"),
        # inside
        ({**GENERATE, "prompt": []}, "$.prompt", "length >= 1"),
        ({**GENERATE, "prompt": [1, -1]}, "$.prompt[1]", ">= 0"),
        ({**GENERATE, "prompt": [1, 2**31]}, "$.prompt[1]", "<= 2147483647"),
        ({**GENERATE, "sampling": {"top_p": 0}}, "$.sampling.top_p", "> 0"),
        ({**GENERATE, "sampling": {"heat": 1}}, "$.sampling.heat", "unknown field"),
        ({**GENERATE, "sampling": {"seed": 2**63}}, "$.sampling.seed", "<= 9223372036854775807"),
        ({**GENERATE, "stop": [""]}, "$.stop[0]", "length >= 1"),
        ({**GENERATE, "stop": ["x"] * 17}, "$.stop", "length <= 16"),
        (
            {**CHAT, "messages": [{"role": "tool", "content": ""}]},
            "$.messages[0].role",
            "expected one of assistant, system, user",
        ),
        ({**CHAT, "messages": []}, "$.messages", "length >= 1"),
        # between fields
        ({"type": "generate", "id": "g", "grant": 8}, "$", "exactly one of `prompt` and `messages`"),
        ({**GENERATE, "messages": CHAT["messages"]}, "$", "exactly one of `prompt` and `messages`"),
        ({**GENERATE, "output_text": "So"}, "$", "beside `prompt` expected `output`"),
        ({**CHAT, "output": [5]}, "$", "beside `messages` expected `output_text`"),
        ({**GENERATE, "refine": {"keep_ratio": 0.5, "protected": [[0, 4]]}}, "$", "expected at most 3"),
        ({**CHAT, "refine": {"keep_ratio": 0.5, "protected": [[0, 5]]}}, "$", "expected at most 4"),
        ({**GENERATE, "refine": {"keep_ratio": 0.5, "protected": [[1, 1]]}}, "$.refine", "`protected[0]` is 1…1"),
        ({**GENERATE, "refine": {"keep_ratio": 0.5, "protected": [[0, 2], [1, 3]]}}, "$.refine", "expected at least 2"),
        ({**GENERATE, "refine": {"keep_ratio": 0.5, "protected": [[0, 1, 2]]}}, "$.refine.protected[0]", "length 2"),
        ({**TOKENS}, "$", "at least one token"),
        ({**TOKENS, "data": b"x"}, "$", "at least one token"),
        ({**TOKENS, "ids": [5], "count": 1}, "$", "exactly one of `ids` and `count`"),
        ({**TOKENS, "ids": [5], "data": b"x"}, "$", "beside `ids` expected none"),
        (
            {"type": "refinement", "id": "g", "stage": 1, "final": True, "unit": "tokens", "keep": [[5, 9], [3, 4]]},
            "$",
            "`keep[1]` starts at 3, expected at least 9",
        ),
    ],
)
def test_a_refusal_names_the_field_and_what_was_expected(codec: Codec, value: Any, path: str, expected: str) -> None:
    with pytest.raises(InvalidMessageError) as refused:
        decode(codec, value)
    assert refused.value.path == path
    assert f"`{path}`" in str(refused.value)
    assert expected in str(refused.value)
    assert refused.value.close_code is CloseCode.POLICY_VIOLATION


@CODECS
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_field_of_every_message_refuses_another_type(
    codec: Codec, kind: Any, recorded: dict[str, dict[str, str]]
) -> None:
    tag = kind.__struct_config__.tag
    message = json.loads(next(vector["json"] for name, vector in recorded.items() if name.split()[0] == tag))
    for name in kind.__struct_fields__:
        with pytest.raises(InvalidMessageError) as refused:
            decode(codec, {**message, name: {"no": ["such", "value"]}})
        assert refused.value.path.startswith(f"$.{name}")
        with pytest.raises(InvalidMessageError) as refused:
            decode(codec, {**message, f"{name}_": 0})
        assert refused.value.path == f"$.{name}_"


@CODECS
def test_the_longest_lists_are_accepted_and_longer_ones_refused(codec: Codec) -> None:
    assert len(decode(codec, {**GENERATE, "prompt": [0] * 1_000_000}).prompt) == 1_000_000
    for field, longest in (("prompt", 1_000_000), ("output", 100_000)):
        with pytest.raises(InvalidMessageError, match=rf"`\$\.{field}`.*length <= {longest}"):
            decode(codec, {**GENERATE, field: [0] * (longest + 1)})


@CODECS
def test_spans_that_touch_do_not_overlap(codec: Codec) -> None:
    decoded = decode(codec, {**GENERATE, "refine": {"keep_ratio": 1, "protected": [[0, 1], [1, 3]]}})
    assert decoded.refine.protected == ((0, 1), (1, 3))


@CODECS
@pytest.mark.parametrize(
    ("value", "generation"),
    [
        ({**GENERATE, "grant": -1}, "g"),
        ({**GENERATE, "prompt": None}, "g"),
        ({**GENERATE, "id": "two words"}, None),
        ({**GENERATE, "id": 5}, None),
        ({"type": "extend", "id": "g", "grant": -1}, None),
        ({"id": "g", "grant": 1}, None),
    ],
)
def test_a_refused_generate_can_be_answered_by_id(codec: Codec, value: Any, generation: str | None) -> None:
    with pytest.raises(InvalidMessageError) as refused:
        decode(codec, value)
    assert refused.value.generation == generation


@pytest.mark.parametrize("data", ["Q", "QQ", "QQ=", "Q!==", "Q\nQ==", "QQ==QQ==", "ü=="])
def test_bad_base64_is_refused(data: str) -> None:
    with pytest.raises(InvalidMessageError, match=r"`\$\.data`.*base64"):
        decode(JsonCodec(), {**TOKENS, "count": 1, "data": data})


def test_messagepack_tells_text_from_bytes() -> None:
    with pytest.raises(InvalidMessageError, match=r"`\$\.data`.*Expected `bytes`, got `str`"):
        decode(MessagePackCodec(), {**TOKENS, "count": 1, "data": "QQ=="})
    with pytest.raises(InvalidMessageError, match=r"`\$\.id`.*Expected `str`, got `bytes`"):
        decode(MessagePackCodec(), {"type": "extend", "id": b"g", "grant": 1})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize(
    ("message", "field"),
    [
        ({"type": "draining"}, "in_ms"),
        ({**GENERATE}, "deadline_ms"),
        ({"type": "accepted", "id": "g", "prompt_tokens": 1}, "queue_ms"),
    ],
)
def test_numbers_that_are_none_are_refused(message: dict[str, Any], field: str, value: float) -> None:
    with pytest.raises(InvalidMessageError, match=rf"`\$\.{field}`"):
        decode(MessagePackCodec(), {**message, field: value})


@pytest.mark.parametrize(
    ("frame", "what"),
    [
        (b"", "truncated"),
        (b"\x81", "truncated"),
        (msgspec.msgpack.encode({"type": "extend", "id": "g", "grant": 1}) + b"\x00", "trailing"),
        (b"\x83\xa4type\xa6extend\xa2id\xa1\xff\xa5grant\x01", "UTF-8"),
        (b"\x81\xa1a" + b"\x91" * 100_000, "nested too deeply"),
    ],
)
def test_damaged_messagepack_is_malformed(frame: bytes, what: str) -> None:
    with pytest.raises(MalformedError, match=what) as refused:
        MessagePackCodec().decode_device(frame)
    assert refused.value.close_code is CloseCode.INVALID_PAYLOAD


@pytest.mark.parametrize(
    ("frame", "what"),
    [
        ("", "truncated"),
        ("{", "truncated"),
        ("{'type': 'extend'}", "malformed"),
        ('{"type":"extend","id":"g","grant":1}}', "trailing"),
        ('{"type":"extend","id":"\ud800","grant":1}', "UTF-8"),
        ('{"a":' + "[" * 100_000, "nested too deeply"),
    ],
)
def test_damaged_json_is_malformed(frame: str, what: str) -> None:
    with pytest.raises(MalformedError, match=what):
        JsonCodec().decode_device(frame)


def test_a_message_too_big_is_refused_before_it_is_read() -> None:
    with pytest.raises(MessageTooBigError, match="16777217 bytes; at most 16777216") as refused:
        MessagePackCodec().decode_device(b"\xc1" * (16 * 1024 * 1024 + 1))
    assert refused.value.close_code is CloseCode.MESSAGE_TOO_BIG
    with pytest.raises(MessageTooBigError):
        JsonCodec().decode_device("€" * (6 * 1024 * 1024))


def test_a_refusal_quotes_little_of_what_the_peer_sent() -> None:
    with pytest.raises(InvalidMessageError) as refused:
        decode(MessagePackCodec(), {"type": "extend", "x" * 1_000_000: 1})
    assert len(str(refused.value)) < 2_000
    assert len(refused.value.path) < 1_000


@pytest.mark.parametrize("codec", [MessagePackCodec(), JsonCodec()], ids=lambda codec: codec.subprotocol)
def test_refusals_do_not_depend_on_the_order_of_fields(codec: Codec) -> None:
    fields = {"grant": -1, "id": "g", "prompt": [1], "type": "generate"}
    with pytest.raises(InvalidMessageError) as refused:
        decode(codec, fields)
    assert (refused.value.path, refused.value.generation) == ("$.grant", "g")
