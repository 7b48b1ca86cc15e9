"""Frames that were once sent decode to the same messages for ever.

A frame in `recorded_frames.json` is never changed or removed: devices that send it are in the field. A new message or
field adds an entry there and its value here.
"""

from __future__ import annotations

from typing import get_args

import pytest

from wire_protocol import CloudMessage, DeviceMessage, JsonCodec, MessagePackCodec
from wire_protocol.messages import (
    Accepted,
    ChatMessage,
    Constraint,
    Draining,
    Error,
    Extend,
    Finished,
    Generate,
    Hello,
    Limits,
    Progress,
    Refine,
    Refinement,
    Rejected,
    Sampling,
    Stop,
    Tokens,
    Usage,
    Welcome,
)

MESSAGES: dict[str, DeviceMessage | CloudMessage] = {
    "hello": Hello(1, "pd-device/0.1.0", "logbook-cloud", "9f2c1e", "77aa02"),
    "hello without an engine": Hello(1, "browser"),
    "generate from ids": Generate("g-1", 24, prompt=(1, 127, 128, 65_536, 2_147_483_647)),
    "generate with everything, from ids": Generate(
        id="run.7:2",
        grant=100_000,
        prompt=(5, 6, 7, 8),
        sampling=Sampling(
            temperature=0.8,
            top_k=40,
            top_p=0.95,
            min_p=0.05,
            repetition_penalty=1.1,
            presence_penalty=-0.5,
            frequency_penalty=0.25,
            seed=9_223_372_036_854_775_807,
        ),
        refine=Refine(0.5, ((0, 1), (3, 4))),
        output=(9, 10),
        stop=("\n\n", "§"),
        deadline_ms=1500.5,
    ),
    "generate from messages": Generate(
        "g-2",
        0,
        messages=(
            ChatMessage("system", "Answer briefly."),
            ChatMessage("user", "Où est le café ?"),
            ChatMessage("assistant", ""),
        ),
        refine=Refine(1.0),
        output_text="Au coin 🙂",
    ),
    "generate that is read twice": Generate("g-5", 8, prompt=(1, 2, 3), refine=Refine(0.25, ((2, 3),), True)),
    "generate in a trace": Generate(
        "g-4", 8, prompt=(1, 2), traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    ),
    "generate a JSON answer": Generate(
        "g-5", 8, prompt=(1, 2), constraint=Constraint("json_schema", '{"type":"object"}')
    ),
    "generate with defaults spelt out": Generate("g-3", 1, prompt=(1,)),
    "progress": Progress("g-1", 12, 5, 33.25, 410.0),
    "progress without a forecast": Progress("g-1", 0, 0, 0.0),
    "extend": Extend("g-1", 48),
    "stop after a hand-over": Stop("g-1", "taken_over"),
    "stop by the user": Stop("g-1", "cancelled"),
    "stop with the answer's length": Stop("g-1", "taken_over", 317),
    "welcome": Welcome(
        1, "pd-cloud/0.1.0", "logbook-cloud", "9f2c1e", "77aa02", Limits(8192, 512, 16, 1_048_576), "ids"
    ),
    "welcome as text": Welcome(1, "pd-cloud/0.1.0", "logbook-cloud", "9f2c1e", "", Limits(0, 0, 0, 0), "text"),
    "welcome that offers everything": Welcome(
        3, "pd-cloud/0.1", "cloud", "a" * 64, "b" * 64, Limits(1_000, 100, 4, 65_536), "ids", ("constraint", "reread")
    ),
    "welcome that offers constraints": Welcome(
        2,
        "pd-cloud/0.2.0",
        "logbook-cloud",
        "9f2c1e",
        "77aa02",
        Limits(8192, 512, 16, 1_048_576),
        "ids",
        ("constraint",),
    ),
    "accepted": Accepted("g-1", 2048, 512, 3.5),
    "accepted with nothing cached": Accepted("g-1", 2048),
    "refinement": Refinement("g-1", 1, False, "tokens", ((0, 16), (16, 40), (1000, 2048))),
    "refinement of characters": Refinement("g-2", 16, True, "characters", ()),
    "refinement that keeps all": Refinement(
        "g-1", 2, True, "tokens", ((0, 2048),), "flat", "the best tenth holds 14% of the importance", "attention", 3.5
    ),
    "refinement that is read again": Refinement("g-5", 1, True, "tokens", ((0, 1), (2, 3)), reread=True),
    "tokens as ids": Tokens("g-1", 0, ids=(17, 300, 70_000)),
    "tokens as text": Tokens("g-2", 3, count=2, data=b"caf\xc3"),
    "tokens without text": Tokens("g-2", 5, count=1),
    "finished": Finished("g-1", "grant", Usage(2048, 512, 24, 3.5, 61.25, 480.0)),
    "finished without usage": Finished("g-1", "stopped"),
    "rejected": Rejected("g-1", "busy", "no slot free before the deadline", 250.0),
    "rejected without a word": Rejected("g-1", "draining"),
    "error": Error("g-1", "engine", "the engine failed during a pass", True),
    "error of the connection": Error("", "bad_message", "`stop` refused at `$.reason`"),
    "draining": Draining(5000.0),
}


@pytest.mark.parametrize("name", MESSAGES)
def test_a_recorded_frame_decodes_to_the_same_message(name: str, recorded: dict[str, dict[str, str]]) -> None:
    message, frame = MESSAGES[name], recorded[name]
    binary, text = MessagePackCodec(), JsonCodec()
    if isinstance(message, DeviceMessage):
        assert binary.decode_device(bytes.fromhex(frame["msgpack"])) == message
        assert text.decode_device(frame["json"]) == message
    else:
        assert binary.decode_cloud(bytes.fromhex(frame["msgpack"])) == message
        assert text.decode_cloud(frame["json"]) == message


def test_every_message_and_every_field_is_recorded(recorded: dict[str, dict[str, str]]) -> None:
    assert recorded.keys() == MESSAGES.keys()
    for kind in (*get_args(DeviceMessage), *get_args(CloudMessage)):
        alike = [message for message in MESSAGES.values() if isinstance(message, kind)]
        for field in kind.__struct_fields__:
            assert any(getattr(message, field) not in (None, 0, "", (), b"") for message in alike), (kind, field)
