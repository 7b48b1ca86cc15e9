"""Messages over one WebSocket: decoded as they come, queued and bounded as they go."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from dataclasses import dataclass

from starlette.websockets import WebSocket, WebSocketDisconnect

from cloud_service.server import Direct
from wire_protocol.close_codes import CloseCode, close_reason
from wire_protocol.codec import Codec
from wire_protocol.messages import CloudMessage, DeviceMessage, Error

#: How long a closing connection may take to send what is queued, in seconds.
FLUSH_TIMEOUT = 1.0


@dataclass(frozen=True, slots=True)
class Closing:
    """Why this side closes the connection, and what it says before."""

    code: CloseCode
    error: Error | None = None


class ClientGoneError(Exception):
    """The client closed the connection, or it was lost."""


class Link:
    """Belongs to one event loop. One reader; any number of senders, none of which ever waits."""

    def __init__(
        self,
        socket: WebSocket,
        codec: Codec,
        *,
        capacity: int,
        patience: float,
        direct: Direct | None,
    ) -> None:
        """`capacity`: messages that may wait for a client that does not read. `patience`: for how long, in seconds,
        it may read nothing while one waits (at most twice as long). `direct`, where the server has it: what is sent
        leaves at once as long as the client keeps up, and one that reads nothing can be dropped; it would otherwise
        keep the connection open."""
        self._socket = socket
        self._codec = codec
        self._capacity = capacity
        self._patience = patience
        self._direct = direct
        self._write_now = None if direct is None else direct.write_now
        self._queue: deque[bytes | str] = deque()
        self._wake = asyncio.Event()
        self._ending = False
        #: Whether the writer waits for the socket's buffer to have room; sending does not suspend it otherwise.
        self._blocked = False
        self._sent = 0
        self._watch: asyncio.TimerHandle | None = None
        #: Done once the client reads too slowly; what is sent from then on is dropped.
        self.slow: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._writer = asyncio.create_task(self._write())

    @property
    def writer(self) -> asyncio.Task[None]:
        """Ends only when the client is gone or the link is closed."""
        return self._writer

    async def receive(self) -> DeviceMessage:
        """The next message. Raises DecodeError for what is none, ClientGoneError."""
        try:
            event = await self._socket.receive()
        except WebSocketDisconnect:
            raise ClientGoneError from None
        if event["type"] == "websocket.disconnect":
            raise ClientGoneError
        text = event.get("text")
        return self._codec.decode_device(event["bytes"] if text is None else text)

    def send(self, message: CloudMessage) -> None:
        """Queue a message."""
        frame = self._codec.encode(message)
        idle = not (self._queue or self._blocked or self._ending)
        if idle and self._write_now is not None and self._write_now(frame):
            return
        if self.slow.done():
            return
        # A queue that only waits for its turn on this event loop is not the client's fault, however long it is.
        if self._blocked and len(self._queue) >= self._capacity:
            self._too_slow()
            return
        self._queue.append(frame)
        self._wake.set()
        if self._watch is None:
            self._watch_progress()

    def _too_slow(self) -> None:
        self.slow.set_result(None)
        self._write_now = None  # nothing overtakes what is dropped

    def _watch_progress(self) -> None:
        self._watch = asyncio.get_running_loop().call_later(self._patience, self._judge_progress, self._sent)

    def _judge_progress(self, sent_before: int) -> None:
        self._watch = None
        if self._blocked and self._sent == sent_before and not self.slow.done():
            self._too_slow()
        elif self._blocked:
            self._watch_progress()

    async def close(self, closing: Closing) -> None:
        """Send what is queued (to a slow reader, no more than the error), then the error and a close frame. Takes at
        most FLUSH_TIMEOUT; then the connection is dropped."""
        self._stop_watching()
        if closing.code is CloseCode.SLOW_READER:
            self._queue.clear()
        if closing.error is not None:
            self._queue.append(self._codec.encode(closing.error))
        self._ending = True
        self._wake.set()
        try:
            async with asyncio.timeout(FLUSH_TIMEOUT):
                await self._writer
                reason = "" if closing.error is None else closing.error.message
                await self._socket.close(closing.code, close_reason(reason))
        except (TimeoutError, ClientGoneError, WebSocketDisconnect):
            if self._direct is not None:
                self._direct.abort()

    async def discard(self) -> None:
        """The client is gone: nothing more is sent."""
        self._stop_watching()
        self._writer.cancel()
        with contextlib.suppress(asyncio.CancelledError, ClientGoneError):
            await self._writer

    def _stop_watching(self) -> None:
        if self._watch is not None:
            self._watch.cancel()

    async def _write(self) -> None:
        while True:
            while self._queue:
                frame = self._queue.popleft()
                self._blocked = True
                try:
                    if isinstance(frame, bytes):
                        await self._socket.send_bytes(frame)
                    else:
                        await self._socket.send_text(frame)
                except WebSocketDisconnect:
                    raise ClientGoneError from None
                self._blocked = False
                self._sent += 1
            if self._ending:
                return
            self._wake.clear()
            await self._wake.wait()
