"""Messages with one field or more spoilt, and bytes that are no messages. Pure: the randomness is passed in."""

from __future__ import annotations

import copy
import json
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from wire_protocol.messages import (
    ChatMessage,
    Constraint,
    DeviceMessage,
    Extend,
    Generate,
    Hello,
    Progress,
    Refine,
    Sampling,
    Stop,
)

#: Together they hold every field of every message that a device may send.
MESSAGES: tuple[DeviceMessage, ...] = (
    Hello(1, "fuzz", "toy", "9f2c", "77aa"),
    Generate(
        "g1",
        5,
        prompt=(1, 2, 3, 4),
        sampling=Sampling(0.5, 3, 0.9, 0.1, 1.1, 0.5, 0.5, 7),
        refine=Refine(0.5, ((0, 1), (2, 3))),
        output=(5, 6),
        stop=("stop",),
        deadline_ms=5000.0,
        traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    ),
    Generate("g2", 5, messages=(ChatMessage("user", "Where?"),), output_text="There", refine=Refine(1.0, reread=True)),
    Generate("g3", 5, prompt=(1, 2), constraint=Constraint("regex", "[a-z ]*")),
    Progress("g1", 3, 2, 50.0, 100.0),
    Extend("g1", 9),
    Stop("g1", "taken_over", 40),
)

_NASTY: tuple[Any, ...] = (
    *(None, True, False, {}, [], [[]], [None], [{}], b"", b"\xff"),
    *(0, -1, 1, 2**31 - 1, 2**31, 2**63 - 1, 2**64 - 1, -(2**63)),
    *(0.5, -0.0, 1e9, 1e308, math.inf, -math.inf, math.nan),
    *("", "g1", "g2", "a" * 65, "a" * 5000, "\x00", "\n", "\ud7ff\U0010ffff", "../..", "%s%n", "<|im_end|>"),
    *([0], [-1], [2**31], [1] * 3000, ["x"] * 20, [[1, 0]], [[0, 2**31]], [[0, 1], [0, 1]]),
    *({"a": 1}, {"type": "stop"}, {"role": "system", "content": ""}, [{"role": "tool", "content": "x"}]),
)


@dataclass(frozen=True, slots=True)
class Frame:
    #: `generate.sampling.top_k`; `damage` or `noise` where no field was chosen.
    spoilt: str
    data: bytes | str


class Frames:
    """An endless supply of them, for one subprotocol."""

    def __init__(self, chance: random.Random, *, as_json: bool) -> None:
        self._chance = chance
        self._as_json = as_json
        self._plain = _plain()

    def next(self) -> Frame:
        chance, kind = self._chance, self._chance.random()
        if kind < 0.04:
            return Frame("noise", self._noise())
        message = copy.deepcopy(chance.choice(self._plain[1:] if kind < 0.95 else self._plain))
        if "id" in message and chance.random() < 0.5:
            message["id"] = f"g{chance.randrange(4)}"
        if kind < 0.1:
            return Frame("damage", self._damaged(self._encode(message)))
        if kind < 0.2:
            return Frame("nothing", self._encode(message))
        spoilt = ""
        for _ in range(1 if kind < 0.85 else 3):
            name, holder, key = chance.choice(list(_places(message, str(message.get("type", "?")))))
            self._spoil(holder, key)
            spoilt = spoilt or name
        return Frame(spoilt, self._encode(message))

    def _spoil(self, holder: Any, key: Any) -> None:
        chance = self._chance
        match chance.randrange(8):
            case 0:
                del holder[key]
            case 1 if isinstance(holder, dict):
                holder[f"{key}s"] = holder.pop(key)
            case 2 if isinstance(holder, dict):
                holder[chance.choice(("extra", "", "type"))] = copy.deepcopy(chance.choice(_NASTY))
            case 3 if isinstance(holder[key], int | float) and not isinstance(holder[key], bool):
                grown = holder[key] * chance.choice((-1, 10**6, 10**12)) + chance.choice((0, 1, -1, 0.5))
                holder[key] = max(-(2**63), min(grown, 2**64 - 1))  # what MessagePack holds
            case _:
                holder[key] = copy.deepcopy(chance.choice(_NASTY))

    def _encode(self, message: dict[str, Any]) -> bytes | str:
        if self._as_json:
            return json.dumps(message, default=lambda value: value.decode("latin-1"))
        return msgspec.msgpack.encode(message)

    def _damaged(self, data: bytes | str) -> bytes | str:
        chance = self._chance
        if isinstance(data, str):
            place = chance.randrange(len(data))
            return data[:place] + chance.choice(("", "\x00", "}", '"', "9" * 400)) + data[place + chance.randrange(3) :]
        place = chance.randrange(len(data))
        return data[:place] + chance.randbytes(chance.randrange(3)) + data[place + chance.randrange(3) :]

    def _noise(self) -> bytes | str:
        chance = self._chance
        if chance.random() < 0.5:
            return chance.randbytes(chance.randrange(200))
        return "".join(map(chr, chance.choices(range(1, 0xD7FF), k=chance.randrange(100))))


def fields() -> set[str]:
    """Every place that may be spoilt."""
    return {name for message in _plain() for name, _, _ in _places(message, message["type"])}


def _plain() -> list[dict[str, Any]]:
    """The messages as what JSON is made of, which can be changed in place."""
    return [json.loads(msgspec.json.encode(message)) for message in MESSAGES]


def _places(holder: Any, name: str) -> Iterator[tuple[str, Any, Any]]:
    """Name, holder and key of everything inside; places of one list share their name."""
    items = holder.items() if isinstance(holder, dict) else enumerate(holder)
    for key, value in list(items):
        inner = f"{name}.{key}" if isinstance(holder, dict) else f"{name}[]"
        yield inner, holder, key
        if isinstance(value, dict | list):
            yield from _places(value, inner)
