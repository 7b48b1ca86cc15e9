"""One proxied TCP connection: the device's socket, the server's socket, and the two pipes between them."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from typing import TYPE_CHECKING

from device_sdk.testing.link_flow import Ending

if TYPE_CHECKING:
    from collections.abc import Callable

    from device_sdk.testing.link_flow import Flow

#: Bytes of one connection under way in one direction before its sender is made to wait, as TCP's window does. Above
#: the bandwidth-delay product of every profile, so that it does not limit throughput.
WINDOW = 4 << 20


class Socket(asyncio.Protocol):
    """One end: what it reads enters a flow."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.transport: asyncio.Transport | None = None
        #: Where what this end reads goes.
        self.outgoing: Pipe | None = None
        #: Where what this end writes comes from.
        self.incoming: Pipe | None = None
        self.lost = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - what TCP servers and clients of asyncio give
        self.transport = transport
        self.connection.socket_made(self)

    def data_received(self, data: bytes) -> None:
        if self.outgoing is not None:
            self.outgoing.take(data)

    def eof_received(self) -> bool:
        if self.outgoing is not None:
            self.outgoing.take(Ending.EOF)
        return True  # keep the other direction open, as TCP does

    def pause_writing(self) -> None:
        if self.incoming is not None:
            self.incoming.block(True)

    def resume_writing(self) -> None:
        if self.incoming is not None:
            self.incoming.block(False)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()
        if self.outgoing is not None:
            self.outgoing.take(Ending.RESET)
        self.connection.socket_lost()

    @property
    def alive(self) -> bool:
        return self.transport is not None and not self.transport.is_closing()

    def reset(self) -> None:
        if self.transport is not None and self.alive:
            raw = self.transport.get_extra_info("socket")
            # Zero linger: closing sends RST instead of FIN.
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.transport.abort()

    def close(self) -> None:
        if self.transport is not None:
            self.transport.close()


class Pipe:
    """From one socket through a flow to the other."""

    def __init__(self, source: Socket, flow: Flow, sink: Socket, connection: Connection) -> None:
        self._source = source
        self._flow = flow
        self._sink = sink
        self._connection = connection
        self._held = 0
        self._blocked = False
        self._paused = False
        self._ended = False
        source.outgoing = self
        sink.incoming = self

    @property
    def closed(self) -> bool:
        return not self._sink.alive

    @property
    def finished(self) -> bool:
        """The sender's end of stream has come out."""
        return self._ended

    def take(self, payload: bytes | Ending) -> None:
        if self.closed or self._ended:
            return
        if not isinstance(payload, Ending):
            self._held += len(payload)
        self._flow.enter(self, payload)
        self._balance()

    def deliver(self, data: bytes) -> None:
        self._held -= len(data)
        if self._sink.transport is not None:
            self._sink.transport.write(data)
        self._balance()

    def end(self, ending: Ending) -> None:
        if self._ended:
            return
        self._ended = True
        if ending is Ending.RESET:
            self._connection.reset()
        elif self._sink.transport is not None:
            with contextlib.suppress(OSError):  # whoever was to read it has gone
                self._sink.transport.write_eof()
            self._connection.side_finished()

    def block(self, blocked: bool) -> None:
        self._blocked = blocked
        self._balance()

    def _balance(self) -> None:
        """Stop reading while too much is under way or the receiver does not take it."""
        transport = self._source.transport
        want_pause = self._blocked or self._held > WINDOW
        if transport is None or want_pause == self._paused or transport.is_closing():
            return
        self._paused = want_pause
        if want_pause:
            transport.pause_reading()
        else:
            transport.resume_reading()


class Connection:
    """Connects to the server once the device has connected; ends when both directions have, or by `reset`/`close`."""

    def __init__(
        self,
        *,
        target: tuple[str, int],
        handshake: float,
        up: Flow,
        down: Flow,
        on_open: Callable[[Connection], None],
        on_closed: Callable[[Connection], None],
    ) -> None:
        self.client = Socket(self)
        self.server = Socket(self)
        self.up = Pipe(self.client, up, self.server, self)
        self.down = Pipe(self.server, down, self.client, self)
        self._target = target
        self._handshake = handshake
        self._on_open = on_open
        self._on_closed = on_closed
        self._connecting: asyncio.Task[None] | None = None

    def socket_made(self, made: Socket) -> None:
        if made is self.client and made.transport is not None:
            made.transport.pause_reading()
            self._connecting = asyncio.get_running_loop().create_task(self._reach_server())
            self._on_open(self)

    async def _reach_server(self) -> None:
        """The kernel has accepted the device at once; its first byte leaves a round trip later, as after a handshake
        over the real link."""
        await asyncio.sleep(self._handshake)
        try:
            await asyncio.get_running_loop().create_connection(lambda: self.server, *self._target)
        except OSError:
            self.reset()
            return
        if not self.client.alive:
            self.server.reset()
        elif self.client.transport is not None:
            self.client.transport.resume_reading()

    def side_finished(self) -> None:
        if self.up.finished and self.down.finished:
            self.close()

    def socket_lost(self) -> None:
        if self.client.lost.is_set() and (self.server.transport is None or self.server.lost.is_set()):
            self._on_closed(self)

    def reset(self) -> None:
        self._stop_connecting()
        self.client.reset()
        self.server.reset()

    def close(self) -> None:
        self._stop_connecting()
        self.client.close()
        self.server.close()

    def _stop_connecting(self) -> None:
        if self._connecting is not None and self._connecting is not asyncio.current_task():
            self._connecting.cancel()

    async def wait_closed(self) -> None:
        """Both sockets are gone and nothing of this connection runs any more."""
        if self._connecting is not None:
            await asyncio.wait([self._connecting])
        await self.client.lost.wait()
        if self.server.transport is not None:
            await self.server.lost.wait()
