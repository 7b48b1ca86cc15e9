"""Questions to a live service, timed: over the SDK's own connection, so that what is measured is what is used."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from device_sdk.errors import CloudError
from device_sdk.link import Address, CloudLink, Connection
from planner.errors import MeasurementError
from wire_protocol.messages import (
    ChatMessage,
    CloudMessage,
    DeviceMessage,
    Error,
    Finished,
    Generate,
    Rejected,
    Tokens,
    Usage,
    terminal,
)

#: Seconds for one answer, the longest prompt on the slowest service.
PATIENCE = 120.0


@dataclass(slots=True)
class Heard:
    """One generation as it came in. Times in seconds since it was asked."""

    arrivals: list[tuple[float, int]] = field(default_factory=list)
    end: CloudMessage | None = None
    ended: float = 0.0

    @property
    def usage(self) -> Usage:
        """Raises MeasurementError where the service did not finish the answer."""
        match self.end:
            case Finished(usage=usage):
                return usage
            case Rejected(reason=reason, message=message):
                raise MeasurementError(f"the service rejected a request ({reason}): {message}")
            case Error(message=message):
                raise MeasurementError(f"the service reported an error: {message}")
            case _:
                raise MeasurementError("the service did not finish an answer")

    def tokens(self) -> int:
        return sum(count for _, count in self.arrivals)

    def tpot(self) -> float | None:
        """Seconds between tokens; None below two messages."""
        if len(self.arrivals) < 2:
            return None
        later = self.tokens() - self.arrivals[0][1]
        return (self.arrivals[-1][0] - self.arrivals[0][0]) / later if later else None


class _Listener:
    def __init__(self) -> None:
        self.heard = Heard()
        self.begun = time.monotonic()
        self.done: asyncio.Future[Heard] = asyncio.get_running_loop().create_future()

    def receive(self, message: CloudMessage) -> None:
        now = time.monotonic() - self.begun
        if isinstance(message, Tokens):
            self.heard.arrivals.append((now, len(message.ids) or message.count))
        if terminal(message) and not self.done.done():
            self.heard.end, self.heard.ended = message, now
            self.done.set_result(self.heard)

    def lost(self, error: CloudError) -> None:
        if not self.done.done():
            self.done.set_exception(error)


@dataclass(slots=True)
class Live:
    """An open connection. Raises MeasurementError from every method where the service or the link fails."""

    connection: Connection
    _number: int = 0

    async def ask(self, text: str, grant: int) -> Heard:
        """One answer of up to `grant` tokens."""
        return await self.send(Generate("", grant, messages=(ChatMessage("user", text),)))

    async def send(self, message: Generate) -> Heard:
        """The same for any request; its `id` is chosen here."""
        import msgspec

        self._number += 1
        name = f"profile-{self._number}"
        listener = _Listener()
        self.connection.attach(name, listener)
        try:
            await self.connection.send(msgspec.structs.replace(message, id=name))
            async with asyncio.timeout(PATIENCE):
                return await listener.done
        except TimeoutError:
            raise MeasurementError(f"the service did not end an answer within {PATIENCE:g} s") from None
        except CloudError as error:
            raise MeasurementError(f"the connection failed: {error}") from error
        finally:
            self.connection.detach(name)

    async def say(self, message: DeviceMessage) -> None:
        try:
            await self.connection.send(message)
        except CloudError as error:
            raise MeasurementError(f"the connection failed: {error}") from error

    async def round_trip(self) -> float:
        """Seconds of a WebSocket ping (RFC 6455, 5.5.2)."""
        try:
            async with asyncio.timeout(PATIENCE):
                return await self.connection.ping()
        except (CloudError, TimeoutError) as error:
            raise MeasurementError(f"the service does not answer pings: {error}") from error


@asynccontextmanager
async def connected(url: str, api_key: str | None = None) -> AsyncIterator[Live]:
    """A connection of its own. Texts travel, as no tokenizer is at hand. Raises MeasurementError."""
    link = CloudLink(Address.parse(url, api_key, ""), tokenizer="", template="", connect_timeout=10.0)
    try:
        try:
            connection = await link.connection()
        except CloudError as error:
            raise MeasurementError(f"no connection: {error}") from error
        yield Live(connection)
    finally:
        await link.close()
