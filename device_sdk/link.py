"""The WebSocket to the cloud: one connection, many generations, dialled when first needed and again when lost."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlsplit, urlunsplit

import websockets
from websockets.asyncio.client import ClientConnection, connect

from device_sdk.errors import (
    CloudError,
    ConfigurationError,
    ConnectError,
    IncompatibleError,
    LinkLostError,
    ServiceFailedError,
    UnauthorizedError,
)
from wire_protocol.close_codes import CloseCode, close_reason, may_retry
from wire_protocol.codec import SUBPROTOCOLS, WEBSOCKET_PATH, codec_for
from wire_protocol.decoding import MAX_MESSAGE_BYTES
from wire_protocol.errors import ProtocolError
from wire_protocol.messages import (
    PROTOCOL_VERSION,
    CloudMessage,
    DeviceMessage,
    Draining,
    Error,
    Hello,
    Welcome,
)

logger = logging.getLogger(__name__)

CLIENT_NAME = "pd-device-python"


class Sink(Protocol):
    """Where a generation's messages go. Called on the event loop; must not block."""

    def receive(self, message: CloudMessage) -> None: ...
    def lost(self, error: CloudError) -> None: ...


@dataclass(frozen=True, slots=True)
class Address:
    """Where the cloud is and who we are to it."""

    url: str
    api_key: str | None = None
    model: str = ""

    @classmethod
    def parse(cls, url: str, api_key: str | None, model: str) -> Address:
        parts = urlsplit(url)
        scheme = {"http": "ws", "https": "wss"}.get(parts.scheme, parts.scheme)
        if scheme not in ("ws", "wss") or not parts.netloc:
            raise ConfigurationError(f"cloud={url!r} is no ws:// or wss:// URL with a host")
        path = parts.path if parts.path not in ("", "/") else WEBSOCKET_PATH
        return cls(urlunsplit((scheme, parts.netloc, path, parts.query, "")), api_key, model)


class CloudLink:
    """Holds at most one usable connection. Safe to use from many generations on one event loop."""

    def __init__(self, address: Address, *, tokenizer: str, template: str, connect_timeout: float) -> None:
        self._address = address
        self._hello = Hello(PROTOCOL_VERSION, CLIENT_NAME, address.model, tokenizer, template)
        self._timeout = connect_timeout
        self._dialling = asyncio.Lock()
        self._current: Connection | None = None
        self._all: set[Connection] = set()

    async def connection(self) -> Connection:
        """The open connection, dialled now if there is none. Raises CloudError."""
        async with self._dialling:
            if self._current is None or not self._current.usable:
                self._current = await self._dial()
            return self._current

    async def close(self) -> None:
        await asyncio.gather(*(connection.close() for connection in list(self._all)))

    async def _dial(self) -> Connection:
        headers = {"Authorization": f"Bearer {self._address.api_key}"} if self._address.api_key else {}
        begun = time.monotonic()
        try:
            async with asyncio.timeout(self._timeout):
                socket = await connect(
                    self._address.url,
                    subprotocols=[websockets.Subprotocol(name) for name in SUBPROTOCOLS],
                    additional_headers=headers,
                    open_timeout=None,  # one timeout spans everything up to `welcome`
                    close_timeout=1.0,
                    max_size=MAX_MESSAGE_BYTES,
                    proxy=None,
                    user_agent_header=CLIENT_NAME,
                )
                try:
                    connection = await Connection.greet(socket, self._hello)
                except BaseException:
                    await _close_quietly(socket)
                    raise
        except TimeoutError:
            raise ConnectError(
                f"{self._address.url} did not answer within {self._timeout:g} s", retriable=True
            ) from None
        except websockets.InvalidStatus as error:
            raise _refusal(error, self._address.url) from None
        except (OSError, websockets.InvalidHandshake, websockets.ConnectionClosed) as error:
            raise ConnectError(f"no connection to {self._address.url}: {error}", retriable=True) from None
        logger.debug("connected to %s in %.0f ms", self._address.url, 1000 * (time.monotonic() - begun))
        self._all.add(connection)
        connection.on_end(self._all.discard)
        return connection


class Connection:
    """One greeted WebSocket. Its reader hands each message to its generation's sink."""

    def __init__(self, socket: ClientConnection, welcome: Welcome, round_trip: float) -> None:
        self.welcome = welcome
        #: Seconds from `hello` to `welcome`.
        self.round_trip = round_trip
        self.usable = True
        self._socket = socket
        self._codec = codec_for(socket.subprotocol)
        self._sinks: dict[str, Sink] = {}
        self._on_end: list[Callable[[Connection], None]] = []
        self._reader = asyncio.create_task(self._read(), name="pd-device-link")

    @classmethod
    async def greet(cls, socket: ClientConnection, hello: Hello) -> Connection:
        """Say hello and wait for the welcome. Raises CloudError."""
        codec = codec_for(socket.subprotocol)
        begun = time.monotonic()
        await socket.send(codec.encode(hello))
        try:
            answer = codec.decode_cloud(await socket.recv())
        except ProtocolError as error:
            raise ServiceFailedError(
                f"the service's answer to hello is no message of {socket.subprotocol}: {error}"
            ) from None
        except websockets.ConnectionClosed as error:
            raise _closed(error) from None
        match answer:
            case Welcome(travel="ids") if (answer.tokenizer, answer.template) != (hello.tokenizer, hello.template):
                raise ServiceFailedError("the service wants token ids, though its tokenizer or template is another")
            case Welcome():
                return cls(socket, answer, time.monotonic() - begun)
            case Error(code="version" | "model", message=message):
                raise IncompatibleError(message)
            case Error(message=message, retriable=retriable):
                raise ServiceFailedError(message, retriable=retriable)
            case _:
                raise ServiceFailedError(f"the service answered hello with {type(answer).__name__}, not with welcome")

    def attach(self, generation: str, sink: Sink) -> None:
        self._sinks[generation] = sink

    def detach(self, generation: str) -> None:
        self._sinks.pop(generation, None)

    def on_end(self, callback: Callable[[Connection], None]) -> None:
        self._on_end.append(callback)

    async def send(self, message: DeviceMessage) -> None:
        """Raises LinkLostError; ServiceFailedError for a message that the protocol forbids."""
        try:
            await self._socket.send(self._codec.encode(message))
        except websockets.ConnectionClosed as error:
            raise _closed(error) from None
        except ProtocolError as error:
            raise ServiceFailedError(f"the protocol cannot carry this {type(message).__name__}: {error}") from None

    async def ping(self) -> float:
        """Seconds until the other end has answered a ping. Raises LinkLostError."""
        begun = time.monotonic()
        try:
            await (await self._socket.ping())
        except websockets.ConnectionClosed as error:
            raise _closed(error) from None
        return time.monotonic() - begun

    @property
    def socket(self) -> socket.socket | None:
        """What carries it, for measurements; None where there is no such thing any more."""
        found: socket.socket | None = self._socket.transport.get_extra_info("socket")
        return found

    async def close(self) -> None:
        self.usable = False
        await _close_quietly(self._socket)
        await asyncio.gather(self._reader, return_exceptions=True)

    async def _read(self) -> None:
        error: CloudError = LinkLostError("the connection ended", retriable=True)
        try:
            async for frame in self._socket:
                self._dispatch(self._codec.decode_cloud(frame))
            error = _closed(None)
        except websockets.ConnectionClosed as closed:
            error = _closed(closed)
        except ProtocolError as broken:
            error = ServiceFailedError(f"the service broke the protocol: {broken}")
            await self._socket.close(broken.close_code, close_reason(str(broken)))
        finally:
            self.usable = False
            sinks, self._sinks = self._sinks, {}
            for sink in sinks.values():
                sink.lost(error)
            for callback in self._on_end:
                callback(self)

    def _dispatch(self, message: CloudMessage) -> None:
        match message:
            case Draining(in_ms=in_ms):
                logger.info("the service goes away in %.0f ms; the next generation connects anew", in_ms)
                self.usable = False
            case Error(id="", message=text, retriable=retriable):
                logger.warning("the service reports: %s", text)
                for sink in list(self._sinks.values()):
                    sink.lost(ServiceFailedError(text, retriable=retriable))
                self._sinks.clear()
            case Welcome():
                logger.warning("a second welcome is ignored")
            case _:
                sink_of = self._sinks.get(message.id)
                if sink_of is not None:  # else: of a generation that has ended here meanwhile
                    sink_of.receive(message)


def _closed(error: websockets.ConnectionClosed | None) -> CloudError:
    code = error.rcvd.code if error is not None and error.rcvd is not None else None
    reason = f": {error.rcvd.reason}" if error is not None and error.rcvd is not None and error.rcvd.reason else ""
    if code == CloseCode.UNAUTHORISED:
        return UnauthorizedError(f"the API key is no longer valid{reason}")
    if code in (CloseCode.VERSION, CloseCode.MODEL):
        return IncompatibleError(f"the service closed the connection{reason}")
    what = "the connection was lost" if code is None else f"the service closed the connection ({code}){reason}"
    return LinkLostError(what, retriable=may_retry(code))


def _refusal(error: websockets.InvalidStatus, url: str) -> CloudError:
    status = error.response.status_code
    if status in (401, 403):
        return UnauthorizedError(f"{url} refused the API key (HTTP {status}); pass the right one as api_key")
    if status == 404:
        return ConnectError(f"{url} has no pd-device service at that path (HTTP 404)")
    return ConnectError(f"{url} refused the connection (HTTP {status})", retriable=status >= 500 or status == 429)


async def _close_quietly(socket: ClientConnection) -> None:
    try:
        await socket.close(CloseCode.NORMAL)
    except OSError:
        logger.debug("closing a broken connection failed", exc_info=True)
