"""Many devices in one process, each with one live stream: as little work for a frame as can be, so that what is late
was late when it came."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import selectors
import socket
import struct
import time
from collections import deque
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

#: Seconds between two looks at what has come: to be woken for every frame costs both sides more than the frame. Frames
#: are that much later here than they came, at most.
LOOK_EVERY = 0.002
_CODEC = codec_for("pd.v1")
PATIENCE = Patience()


@dataclass(slots=True)
class Stream:
    """What came of one generation."""

    #: By output index, on the monotonic clock in seconds.
    arrivals: list[float] = field(default_factory=list)
    #: How it ended, where not as it should.
    fault: str = ""


class Device:
    """One connection with one generation. A WebSocket client as far as this needs one (RFC 6455)."""

    def __init__(self, port: int, number: int, grant: int, prints: tuple[str, str]) -> None:
        self.stream = Stream()
        self.ended = False
        self._number = number
        self._grant = grant
        self._accepted = False
        self._prints = prints
        self._data = bytearray()
        self._upgraded = False
        self._told: Told | None = None
        #: Long after it has all it asked for: it is the cloud's to the end.
        self._ready_at = time.monotonic() + 2 * grant * TICK
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        key = base64.b64encode(os.urandom(16)).decode()
        self.socket.send(
            f"GET {WEBSOCKET_PATH} HTTP/1.1\r\nHost: gateway\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: pd.v1\r\n\r\n".encode()
        )

    def read(self) -> None:
        """What has come."""
        try:
            data = self.socket.recv(65536)
        except OSError as error:
            self.end(f"the connection was lost: {error}")
            return
        now = time.monotonic()
        if not data:
            self.end("the connection was closed")
            return
        self._data += data
        if not self._upgraded:
            self._upgrade()
        while self._upgraded and not self.ended and (message := self._next_message()) is not None:
            self._take(message, now)

    def tell(self, now: float) -> None:
        """Progress, where there is something to tell as the SDK sees it. Each token is shown when the next is due."""
        if not self._accepted:
            return
        received = len(self.stream.arrivals)
        stands, every = Told(now, max(0, received - 1), TICK, self._ready_at), PATIENCE.progress_at_least_every
        if self._told is None or self._told.stale(stands, received, at_least_every=every):
            self._told = stands
            self._send(Progress("g", received, stands.shown, 1000 * TICK, 1000 * (self._ready_at - now)))

    def end(self, fault: str) -> None:
        """The socket is closed by whoever reads it: there is always a last thing to read then, its end."""
        if not self.ended:
            self.ended = True
            self.stream.fault = fault
            with contextlib.suppress(OSError):  # it may be gone
                self.socket.shutdown(socket.SHUT_RDWR)

    def _upgrade(self) -> None:
        end = self._data.find(b"\r\n\r\n")
        if end < 0:
            return
        if not self._data.startswith(b"HTTP/1.1 101"):
            self.end(bytes(self._data[:60]).decode("latin-1"))
            return
        del self._data[: end + 4]
        self._upgraded = True
        self._send(Hello(1, "benchmark", tokenizer=self._prints[0], template=self._prints[1]))

    def _take(self, message: CloudMessage, now: float) -> None:
        match message:
            case Tokens(ids=ids):
                self.stream.arrivals += [now] * len(ids)
            case Welcome():
                prompt = (self._number % 200 + 3,) * 4
                self._send(Generate("g", self._grant, prompt=prompt))
            case Accepted():
                self._accepted = True
            case Finished(reason="grant"):
                self.end("")
            case Finished() | Rejected() | Error():
                self.end(str(message))
            case _:
                pass

    def _send(self, message: Hello | Generate | Progress) -> None:
        body = _CODEC.encode(message)
        size = bytes([0x80 | len(body)]) if len(body) < 126 else struct.pack("!BH", 0x80 | 126, len(body))
        # A mask of zeros: what is sent is what was meant.
        self._write(b"\x82" + size + b"\0\0\0\0" + body)

    def _write(self, frame: bytes) -> None:
        try:
            self.socket.send(frame)  # a few bytes: whole, or the gateway has read nothing for a long time
        except OSError as error:
            self.end(f"nothing could be sent: {error}")

    def _next_message(self) -> CloudMessage | None:
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
            self._write(b"\x8a" + bytes([0x80 | len(body)]) + b"\0\0\0\0" + body)
        return self._next_message()


def live(port: int, count: int, *, tokens: int, ramp: float, paced: bool, prints: tuple[str, str]) -> list[Stream]:
    """`count` streams of `tokens` tokens each, begun evenly over `ramp` seconds. Returns when all have ended.

    Without an event loop: asyncio takes four times as long for a frame, and would be late for a thousand devices.
    """
    began = time.monotonic()
    until = began + ramp + 60 + 4 * tokens * TICK
    devices: list[Device] = []
    # When to look again whether one has something to tell, soonest first.
    looks: deque[tuple[float, Device]] = deque()
    running = 0
    with selectors.DefaultSelector() as selector:
        while running or len(devices) < count:
            now = time.monotonic()
            if now > until:
                raise TimeoutError(f"{running} of {count} streams have not ended after {now - began:.0f} s")
            if len(devices) < count and now >= began + len(devices) * ramp / count:
                device = Device(port, len(devices), tokens, prints)
                selector.register(device.socket, selectors.EVENT_READ, device)
                if paced:
                    looks.append((now + PATIENCE.progress_every, device))
                devices.append(device)
                running += 1
            while looks and looks[0][0] <= now:
                _, device = looks.popleft()
                if not device.ended:
                    device.tell(now)
                    looks.append((now + PATIENCE.progress_every, device))
            time.sleep(LOOK_EVERY)
            for key, _ in selector.select(0):
                key.data.read()
                if key.data.ended:
                    selector.unregister(key.fileobj)
                    key.data.socket.close()
                    running -= 1
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
