"""Many devices in one process, each with one live stream: as little work for a frame as can be, so that what is late
was late when it came."""

from __future__ import annotations

import asyncio
import base64
import os
import struct
import time
from dataclasses import dataclass, field

from benchmarks.stream_engine import TICK
from device_sdk.generation.plan import Patience
from device_sdk.generation.telling import Told
from wire_protocol.codec import WEBSOCKET_PATH, codec_for
from wire_protocol.messages import (
    Accepted,
    CloudMessage,
    Error,
    Finished,
    Generate,
    Hello,
    Progress,
    Rejected,
    Tokens,
    Welcome,
)

_CODEC = codec_for("pd.v1")
PATIENCE = Patience()


@dataclass(slots=True)
class Stream:
    """What came of one generation."""

    #: By output index, on the monotonic clock in seconds.
    arrivals: list[float] = field(default_factory=list)
    #: How it ended, where not as it should.
    fault: str = ""


class Device(asyncio.Protocol):
    """One connection with one generation. A WebSocket client as far as this needs one (RFC 6455)."""

    def __init__(
        self, number: int, grant: int, paced: bool, prints: tuple[str, str], done: asyncio.Future[None]
    ) -> None:
        self.stream = Stream()
        self._number = number
        self._grant = grant
        self._paced = paced
        self._prints = prints
        self._done = done
        self._data = bytearray()
        self._upgraded = False
        self._timer: asyncio.TimerHandle | None = None
        self._told: Told | None = None
        #: Long after it has all it asked for: it is the cloud's to the end.
        self._ready_at = time.monotonic() + 2 * grant * TICK

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        key = base64.b64encode(os.urandom(16)).decode()
        transport.write(  # type: ignore[attr-defined]
            f"GET {WEBSOCKET_PATH} HTTP/1.1\r\nHost: gateway\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: pd.v1\r\n\r\n".encode()
        )

    def data_received(self, data: bytes) -> None:
        now = time.monotonic()
        self._data += data
        if not self._upgraded:
            end = self._data.find(b"\r\n\r\n")
            if end < 0:
                return
            if not self._data.startswith(b"HTTP/1.1 101"):
                self._end(bytes(self._data[:60]).decode("latin-1"))
                return
            del self._data[: end + 4]
            self._upgraded = True
            self._send(Hello(1, "benchmark", tokenizer=self._prints[0], template=self._prints[1]))
        while (frame := self._next_frame()) is not None:
            self._take(frame, now)

    def connection_lost(self, error: Exception | None) -> None:
        self._end(f"the connection was lost: {error}")

    def _take(self, message: CloudMessage, now: float) -> None:
        match message:
            case Tokens(ids=ids):
                self.stream.arrivals += [now] * len(ids)
            case Welcome():
                prompt = (self._number % 200 + 3,) * 4
                self._send(Generate("g", self._grant, prompt=prompt))
            case Accepted():
                if self._paced:
                    self._timer = asyncio.get_running_loop().call_later(PATIENCE.progress_every, self._progress)
            case Finished(reason="grant"):
                self._end("")
            case Finished() | Rejected() | Error():
                self._end(str(message))
            case _:
                pass

    def _progress(self) -> None:
        """Where there is something to tell, as the SDK sees it. Each token is shown when the next one is due."""
        now, received = time.monotonic(), len(self.stream.arrivals)
        stands, every = Told(now, max(0, received - 1), TICK, self._ready_at), PATIENCE.progress_at_least_every
        if self._told is None or self._told.stale(stands, received, at_least_every=every):
            self._told = stands
            self._send(Progress("g", received, stands.shown, 1000 * TICK, 1000 * (self._ready_at - now)))
        self._timer = asyncio.get_running_loop().call_later(PATIENCE.progress_every, self._progress)

    def _end(self, fault: str) -> None:
        if not self._done.done():
            self.stream.fault = fault
            self._done.set_result(None)
            self._transport.close()
        if self._timer is not None:
            self._timer.cancel()

    def _send(self, message: Hello | Generate | Progress) -> None:
        body = _CODEC.encode(message)
        size = bytes([0x80 | len(body)]) if len(body) < 126 else struct.pack("!BH", 0x80 | 126, len(body))
        # A mask of zeros: what is sent is what was meant.
        self._transport.write(b"\x82" + size + b"\0\0\0\0" + body)  # type: ignore[attr-defined]

    def _next_frame(self) -> CloudMessage | None:
        data = self._data
        if len(data) < 2:
            return None
        start, size = 2, data[1]
        if size == 126:
            if len(data) < 4:
                return None
            start, size = 4, int.from_bytes(data[2:4], "big")
        if len(data) < start + size:
            return None
        opcode, body = data[0] & 0x0F, bytes(data[start : start + size])
        del data[: start + size]
        if opcode == 2:
            return _CODEC.decode_cloud(body)
        if opcode == 9:  # a ping
            self._transport.write(b"\x8a" + bytes([0x80 | len(body)]) + b"\0\0\0\0" + body)  # type: ignore[attr-defined]
        return self._next_frame()


async def live(
    port: int, count: int, *, tokens: int, ramp: float, paced: bool, prints: tuple[str, str]
) -> list[Stream]:
    """`count` streams of `tokens` tokens each, begun evenly over `ramp` seconds. Returns when all have ended."""
    loop = asyncio.get_running_loop()
    devices, ends = [], []
    for number in range(count):
        done: asyncio.Future[None] = loop.create_future()
        device = Device(number, tokens, paced, prints, done)
        await loop.create_connection(lambda device=device: device, "127.0.0.1", port)
        devices.append(device)
        ends.append(done)
        await asyncio.sleep(ramp / count)
    await asyncio.wait_for(asyncio.gather(*ends), timeout=60 + 4 * tokens * TICK)
    return [device.stream for device in devices]


async def live_sse(port: int, count: int, *, tokens: int, patience: float) -> list[Stream]:
    """The same of an OpenAI-compatible server, over HTTP. Streams that have not ended after `patience` seconds are left
    as they are."""
    streams = [Stream() for _ in range(count)]
    tasks = [asyncio.create_task(_sse(port, stream, tokens)) for stream in streams]
    _, unfinished = await asyncio.wait(tasks, timeout=patience)
    for task in unfinished:
        task.cancel()
    for stream, task in zip(streams, tasks, strict=True):
        if task in unfinished:
            stream.fault = f"{len(stream.arrivals)} of {tokens} tokens after {patience:.0f} s"
    await asyncio.gather(*tasks, return_exceptions=True)
    return streams


async def _sse(port: int, stream: Stream, tokens: int) -> None:
    body = b'{"prompt":"x","stream":true,"max_tokens":%d}' % tokens
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        head = "POST /v1/completions HTTP/1.1\r\nHost: server\r\nContent-Type: application/json\r\n"
        writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        while line := await reader.readline():
            if line.startswith(b"data: {"):
                stream.arrivals.append(time.monotonic())
            elif line.startswith(b"data: [DONE]"):
                return
        stream.fault = "the connection was closed"
    finally:
        writer.close()
