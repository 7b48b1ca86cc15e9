"""Every field of every message, spoilt over a live socket; the full length is `python -m benchmarks.fuzz`."""

from __future__ import annotations

import asyncio
import random
from typing import get_args

import msgspec

from benchmarks.fuzz import fuzz, serving
from benchmarks.fuzzing.frames import MESSAGES, Frames, fields
from wire_protocol.messages import DeviceMessage, Refine, Sampling


def test_the_supply_holds_every_field():
    assert {type(message) for message in MESSAGES} == set(get_args(DeviceMessage))
    named = fields()
    for kind in get_args(DeviceMessage):
        tag = kind.__struct_config__.tag
        assert {f"{tag}.{field}" for field in kind.__struct_fields__} <= named
    for name, kind in (("sampling", Sampling), ("refine", Refine)):
        assert {f"generate.{name}.{field}" for field in kind.__struct_fields__} <= named


def test_a_seed_gives_the_same_frames_again():
    for as_json in (False, True):
        supplies = [Frames(random.Random(3), as_json=as_json) for _ in range(2)]
        assert [supplies[0].next() for _ in range(50)] == [supplies[1].next() for _ in range(50)]
    spoilt = Frames(random.Random(4), as_json=False)
    plain = {msgspec.msgpack.encode(message) for message in MESSAGES}
    assert sum(spoilt.next().data in plain for _ in range(200)) < 60


def test_nothing_is_left_of_spoilt_conversations():
    with serving() as target:
        outcome = asyncio.run(fuzz(target, 600, seed=random.randrange(10**6)))
    assert [fault for fault in outcome.faults if not fault.startswith("never spoilt")] == []
    assert outcome.frames >= 600
    assert outcome.closes[1008] > 0
