"""uvicorn as this service needs it: drain before connections close, and connections that can be dropped."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import uvicorn
from starlette.websockets import WebSocket
from uvicorn._types import ASGISendEvent
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State

from cloud_service.service import CLOSE_TIMEOUT, Service
from cloud_service.settings import Settings
from http_api.serving import DrainingServer
from http_api.settings import SettingsError

_DIRECT = "pd_device.direct"


@dataclass(frozen=True, slots=True)
class Direct:
    """What a connection of `CloudServer` can do beyond ASGI."""

    #: Drop it at once.
    abort: Callable[[], None]
    #: Send a frame without suspending; False where the peer does not keep up or is gone, and nothing was sent.
    write_now: Callable[[bytes | str], bool]


#: What a small frame from a server begins with, by its opcode and length (RFC 6455, 5.2): FIN is set, nothing masked.
_SMALL = {opcode: [bytes((0x80 | opcode, length)) for length in range(126)] for opcode in (Opcode.TEXT, Opcode.BINARY)}


def _framed(opcode: Opcode, data: bytes) -> bytes:
    return Frame(opcode, data).serialize(mask=False)


class _WebSocket(WebSocketsSansIOProtocol):
    """Tells the application how to drop the connection: a close as ASGI knows it waits for the peer to read what is
    in the socket's buffer, which a peer that reads nothing never does. And takes a denied upgrade for what it is,
    which uvicorn logs as an error of the application."""

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        if hasattr(self, "scope"):  # not where the upgrade was refused
            self.scope["extensions"][_DIRECT] = {"direct": Direct(self.transport.abort, self.write_now)}

    def write_now(self, frame: bytes | str) -> bool:
        """As in `Direct`. A token is a frame of its own, and a task's turn for each costs more than the frame."""
        if not self.writable.is_set() or self.disconnected or self.close_sent or not self.handshake_complete:
            return False
        if self.conn.state is not State.OPEN:
            return False
        opcode, data = (Opcode.BINARY, frame) if isinstance(frame, bytes) else (Opcode.TEXT, frame.encode())
        self.transport.write(_SMALL[opcode][len(data)] + data if len(data) < 126 else _framed(opcode, data))
        return True

    async def send(self, message: ASGISendEvent) -> None:
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and not message.get("more_body", False):
            self.handshake_complete = True


def direct_of(connection: WebSocket) -> Direct | None:
    """What the connection can do beyond ASGI; None under a server other than `CloudServer`."""
    extension = connection.scope.get("extensions", {}).get(_DIRECT)
    direct: Direct | None = None if extension is None else extension["direct"]
    return direct


def check_tls(settings: Settings) -> None:
    """Raises SettingsError where the certificate and its key cannot be used."""
    if settings.tls_certificate is None:
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(settings.tls_certificate, settings.tls_key)
    except OSError as error:  # SSLError is one
        beside = "" if settings.tls_key is None else f" with {settings.tls_key}"
        raise SettingsError(f"tls_certificate: {settings.tls_certificate}{beside} cannot be used: {error}") from None


class CloudServer(DrainingServer):
    """Serves the app of one Service."""

    def __init__(self, app: Any, service: Service, settings: Settings) -> None:
        config = uvicorn.Config(
            app,
            ws=_WebSocket,
            ws_max_size=settings.max_message_bytes,
            # Tokens are a few bytes: compressing them costs more than it saves.
            ws_per_message_deflate=False,
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=int(CLOSE_TIMEOUT),
            ssl_certfile=settings.tls_certificate,
            ssl_keyfile=settings.tls_key,
        )
        super().__init__(config, drain=service.drain, hurry=service.hurry)
