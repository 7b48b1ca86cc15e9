"""uvicorn as this service needs it: drain before connections close, and connections that can be dropped."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from types import FrameType
from typing import Any

import uvicorn
from starlette.websockets import WebSocket
from uvicorn._types import ASGISendEvent
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.http11 import Request

from cloud_service.service import CLOSE_TIMEOUT, Service
from cloud_service.settings import Settings

_ABORT = "pd_device.abort"


class _WebSocket(WebSocketsSansIOProtocol):
    """Tells the application how to drop the connection: a close as ASGI knows it waits for the peer to read what is
    in the socket's buffer, which a peer that reads nothing never does. And takes a denied upgrade for what it is,
    which uvicorn logs as an error of the application."""

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        if hasattr(self, "scope"):  # not where the upgrade was refused
            self.scope["extensions"][_ABORT] = {"abort": self.transport.abort}

    async def send(self, message: ASGISendEvent) -> None:
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and not message.get("more_body", False):
            self.handshake_complete = True


def abort_of(connection: WebSocket) -> Callable[[], None] | None:
    """How to drop the connection at once; None under a server other than `CloudServer`."""
    extension = connection.scope.get("extensions", {}).get(_ABORT)
    abort: Callable[[], None] | None = None if extension is None else extension["abort"]
    return abort


def listen(host: str, port: int) -> socket.socket:
    """A socket for `CloudServer.serve(sockets=[…])`. Raises OSError.

    It says that it is TCP: asyncio turns Nagle's algorithm off only on connections of such a socket, and with it on,
    a token would wait for the acknowledgement of the one before.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if os.name == "posix":  # elsewhere it would let two processes share the port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen()
    except OSError:
        listener.close()
        raise
    return listener


class CloudServer(uvicorn.Server):
    """Serves the app of one Service, on the event loop that it is made on. A first SIGTERM or SIGINT drains; a
    second one does not wait for what runs."""

    def __init__(self, app: Any, service: Service, settings: Settings) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                ws=_WebSocket,
                ws_max_size=settings.max_message_bytes,
                # Tokens are a few bytes: compressing them costs more than it saves.
                ws_per_message_deflate=False,
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=int(CLOSE_TIMEOUT),
            )
        )
        self._service = service
        self._loop = asyncio.get_running_loop()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Unlike uvicorn's, does not raise the signal again at the end: a drained service has ended well."""
        if self.should_exit:
            self.force_exit = True
            self._loop.call_soon_threadsafe(self._service.hurry)
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await self._service.drain()
        await super().shutdown(sockets)
