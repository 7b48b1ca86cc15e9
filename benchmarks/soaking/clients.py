"""Devices and OpenAI clients that behave in every way that clients do, and note how each generation ended."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from wire_protocol.codec import WEBSOCKET_PATH, codec_for
from wire_protocol.messages import (
    CloudMessage,
    Error,
    Extend,
    Finished,
    Generate,
    Hello,
    Progress,
    Refine,
    Refinement,
    Rejected,
    Sampling,
    Stop,
    Tokens,
    terminal,
)

#: Seconds for a generation to come to an end.
PATIENCE = 120.0
#: Prompts begin with one of so many texts, of so many tokens.
FAMILIES, SHARED = 4, 64
#: Of the generations, those that are refined, and of these, those answered from what is kept.
REFINED, REREAD = 0.3, 0.7

#: What a client may do, and how often.
BEHAVIOURS = {
    "takes it all": 50,
    "stops in the middle": 12,
    "cancels at once": 6,
    "extends": 8,
    "cannot wait": 6,
    "drops the connection": 8,
    "OpenAI, takes it all": 6,
    "OpenAI, drops the connection": 4,
}

_codec = codec_for("pd.v1")


@dataclass
class Record:
    """What came of all generations."""

    begun: int = 0
    behaviours: Counter[str] = field(default_factory=Counter)
    #: How those ended that were not dropped by their client; each must be in here once.
    ends: Counter[str] = field(default_factory=Counter)
    dropped: int = 0
    tokens: int = 0
    #: Refinements of answers that come from what is kept.
    reread: int = 0
    #: What should never be.
    faults: list[str] = field(default_factory=list)


@dataclass
class Client:
    """One after another, until `more` says that it is enough."""

    port: int
    prints: tuple[str, str]
    vocabulary: int
    dice: random.Random
    record: Record
    more: Callable[[], bool]

    async def run(self) -> None:
        while self.more():
            kind = self._behaviour()
            if kind.startswith("OpenAI"):
                await self._chat(kind)
            else:
                await self._connection(kind)

    def _behaviour(self) -> str:
        [kind] = self.dice.choices(list(BEHAVIOURS), list(BEHAVIOURS.values()))
        return kind

    def _begin(self, kind: str) -> None:
        self.record.begun += 1
        self.record.behaviours[kind] += 1

    # --- devices ------------------------------------------------------------------------------------------------

    async def _connection(self, kind: str) -> None:
        """Generations over one connection, the first of which behaves as `kind`."""
        url = f"ws://127.0.0.1:{self.port}{WEBSOCKET_PATH}"
        async with connect(url, subprotocols=[Subprotocol("pd.v1")], open_timeout=PATIENCE, close_timeout=1) as socket:
            await socket.send(_codec.encode(Hello(1, "soak", "", *self.prints)))
            await socket.recv()
            for number in range(self.dice.randrange(1, 30)):
                self._begin(kind)
                if not await self._generation(socket, f"g{number}", kind):
                    socket.transport.abort()
                    return
                kind = self._behaviour()
                if kind.startswith("OpenAI") or not self.more():
                    return

    async def _generation(self, socket: ClientConnection, name: str, kind: str) -> bool:
        """Whether the connection is of use afterwards."""
        dice, record = self.dice, self.record
        shared = random.Random(dice.randrange(FAMILIES))
        prompt = [shared.randrange(self.vocabulary) for _ in range(SHARED)]
        prompt += [dice.randrange(self.vocabulary) for _ in range(dice.randrange(1, 120))]
        refine = Refine(0.5, reread=dice.random() < REREAD) if dice.random() < REFINED else None
        ask = Generate(
            name,
            dice.randrange(1, 49),
            prompt=tuple(prompt),
            sampling=Sampling(temperature=dice.choice((0.0, 0.8)), seed=dice.randrange(100)),
            deadline_ms=float(dice.randrange(1, 1_000)) if kind == "cannot wait" else None,
            refine=refine,
        )
        turn = dice.randrange(1, 16)
        given = 0
        try:
            await socket.send(_codec.encode(ask))
            if kind == "cancels at once":
                await socket.send(_codec.encode(Stop(name, "cancelled")))
            async with asyncio.timeout(PATIENCE):
                while True:
                    message = _codec.decode_cloud(await socket.recv())
                    given = self._check(message, name, given)
                    if terminal(message):
                        break
                    if isinstance(message, Tokens) and given - len(message.ids) < turn <= given:
                        if kind == "drops the connection":
                            record.dropped += 1
                            return False
                        await self._turn(socket, name, kind, given)
        except TimeoutError:
            record.faults.append(f"no end within {PATIENCE:g} s ({kind})")
            return False
        except ConnectionClosed as closed:
            record.faults.append(f"the service closed a connection: {closed}")
            return False
        record.ends[_end(message)] += 1
        record.tokens += given
        return True

    async def _turn(self, socket: ClientConnection, name: str, kind: str, given: int) -> None:
        if kind == "stops in the middle":
            await socket.send(_codec.encode(Stop(name, "cancelled")))
        elif kind == "extends":
            await socket.send(_codec.encode(Extend(name, 64)))
        else:
            await socket.send(_codec.encode(Progress(name, given, given // 2, 50.0, 2_000.0)))

    def _check(self, message: CloudMessage, name: str, given: int) -> int:
        """How many tokens there are now."""
        if getattr(message, "id", name) != name:
            self.record.faults.append(f"{type(message).__name__} after the end of its generation")
        if isinstance(message, Refinement) and message.reread:
            self.record.reread += 1
            if given:
                self.record.faults.append("tokens came before it was known from what")
        if not isinstance(message, Tokens):
            return given
        if message.first != given:
            self.record.faults.append(f"token {message.first} came where {given} was due")
        return message.end

    # --- OpenAI -------------------------------------------------------------------------------------------------

    async def _chat(self, kind: str) -> None:
        self._begin(kind)
        body = {
            "model": "soak",
            "messages": [{"role": "user", "content": f"Dock log {self.dice.randrange(99)}. Who painted the crane?"}],
            "max_tokens": self.dice.randrange(1, 200),
            "stream": True,
        }
        end, events = "", 0
        turn = self.dice.randrange(1, 10)
        try:
            async with (
                asyncio.timeout(PATIENCE),
                httpx.AsyncClient(timeout=PATIENCE) as client,
                client.stream("POST", f"http://127.0.0.1:{self.port}/v1/chat/completions", json=body) as response,
            ):
                if response.status_code != 200:
                    self.record.ends[f"OpenAI: status {response.status_code}"] += 1
                    return
                async for line in response.aiter_lines():
                    events += line.startswith("data:")
                    if kind.endswith("drops the connection") and events >= turn:
                        self.record.dropped += 1
                        return
                    end = self._read(line, end)
        except TimeoutError:
            self.record.faults.append(f"no end within {PATIENCE:g} s ({kind})")
            return
        except httpx.HTTPError as error:
            self.record.faults.append(f"OpenAI: {type(error).__name__}: {error}")
            return
        if not end:
            self.record.faults.append("an OpenAI stream ended without an end")
        self.record.ends[end] += 1

    def _read(self, line: str, end: str) -> str:
        """How the stream ended, as far as this line tells."""
        with suppress(ValueError):
            event = json.loads(line.removeprefix("data:"))
            if "error" in event:
                reason = f"OpenAI error: {event['error'].get('code') or event['error'].get('type')}"
            else:
                reason = next((choice["finish_reason"] for choice in event.get("choices", ())), None) or ""
            if reason and end:
                self.record.faults.append("an OpenAI stream ended twice")
            return reason or end
        return end


def _end(message: CloudMessage) -> str:
    match message:
        case Finished(reason=reason):
            return reason
        case Rejected(reason=reason):
            return f"rejected: {reason}"
        case Error(code=code, retriable=retriable):
            return f"error: {code}{', retriable' if retriable else ''}"
        case _:
            raise AssertionError(f"{type(message).__name__} ends nothing")
