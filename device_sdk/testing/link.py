"""An emulated network with faults on demand, as a TCP proxy on loopback in front of a real server.

    async with LinkProxy("127.0.0.1", server_port, LINKS["5g"], seed=1) as link:
        client = HybridClient(cloud=link.url("ws"))
        link.after_bytes(2_000, link.drop)

It runs on the event loop that starts it, in callbacks only: nothing polls, and an idle link costs nothing. Delays are
never shorter than the profile says, and longer by what a busy event loop adds (about a millisecond on an idle one).
"""

from __future__ import annotations

import asyncio
import enum
import random
from contextlib import contextmanager
from typing import TYPE_CHECKING

from device_sdk.testing.link_flow import Flow
from device_sdk.testing.link_profiles import LOOPBACK, Lane
from device_sdk.testing.link_sockets import Connection
from model_runtime.profiles.links import LinkProfile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType
    from typing import Self


class Direction(enum.Enum):
    """Of bytes: `UP` from the device to the server, `DOWN` from the server to the device."""

    UP = "up"
    DOWN = "down"


class LinkProxy:
    """Everything may be called at any time from the event loop's thread; counts stay readable after the end."""

    def __init__(
        self, host: str, port: int, profile: LinkProfile = LOOPBACK, *, seed: int = 0, listen_port: int = 0
    ) -> None:
        """Forward to `host:port`, asked anew for each connection: a server may go away and come back.
        `listen_port` 0 takes a free one."""
        self.profile = profile
        self.host = "127.0.0.1"
        #: Where the device connects; 0 until started.
        self.port = listen_port
        #: Connections accepted in all.
        self.connections = 0
        self._target = (host, port)
        self._rng = random.Random(seed)
        self._open: set[Connection] = set()
        self._refusing = False
        self._server: asyncio.Server | None = None
        self._flows: dict[Direction, Flow] = {}

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        profile = self.profile
        for direction, kbps in ((Direction.UP, profile.up_kbps), (Direction.DOWN, profile.down_kbps)):
            lane = Lane(one_way=profile.rtt_ms / 2000, jitter=profile.jitter_ms / 1000, kbps=kbps, rng=self._rng)
            self._flows[direction] = Flow(lane, loop)
        self._server = await loop.create_server(self._accept, self.host, self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Reset what is still open, and return when nothing of it is left."""
        if self._server is not None:
            self._server.close()
        for flow in self._flows.values():
            flow.shut_down()
        connections = list(self._open)
        self.drop()
        for connection in connections:
            await connection.wait_closed()

    def url(self, scheme: str = "ws") -> str:
        """`scheme://host:port` of the device's end."""
        return f"{scheme}://{self.host}:{self.port}"

    @property
    def open_connections(self) -> int:
        return len(self._open)

    @property
    def bytes_up(self) -> int:
        """Bytes handed to the server so far."""
        return self._flows[Direction.UP].delivered

    @property
    def bytes_down(self) -> int:
        """Bytes handed to the device so far."""
        return self._flows[Direction.DOWN].delivered

    # --- faults -----------------------------------------------------------------------------------------------------

    def stall(self, *directions: Direction) -> None:
        """From now on nothing comes out in `directions` (both when none is named); connections stay open."""
        for direction in directions or Direction:
            self._flows[direction].stall()

    def resume(self) -> None:
        """End every stall: what was held comes out at once, in order."""
        for flow in self._flows.values():
            flow.resume()

    @contextmanager
    def stalled(self, *directions: Direction) -> Iterator[None]:
        """`stall`, then `resume` at the end of the block."""
        self.stall(*directions)
        try:
            yield
        finally:
            self.resume()

    def delay(self, seconds: float, *directions: Direction) -> None:
        """Add `seconds` to each way from now on, for what is not yet under way; 0 ends it."""
        for direction in directions or Direction:
            self._flows[direction].lane.extra = seconds

    @contextmanager
    def delayed(self, seconds: float, *directions: Direction) -> Iterator[None]:
        """`delay`, ended with the block."""
        self.delay(seconds, *directions)
        try:
            yield
        finally:
            self.delay(0.0, *directions)

    def drop(self) -> None:
        """Break every open connection with a TCP reset, both sides; what was under way is lost."""
        for connection in list(self._open):
            connection.reset()

    def close(self) -> None:
        """End every open connection in good order (FIN), both sides; what was under way is lost."""
        for connection in list(self._open):
            connection.close()

    def refuse(self) -> None:
        """Reset every new connection as soon as it is made."""
        self._refusing = True

    def admit(self) -> None:
        """End `refuse`."""
        self._refusing = False

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """`refuse`, then `admit` at the end of the block."""
        self.refuse()
        try:
            yield
        finally:
            self.admit()

    def garbage(self, data: bytes, direction: Direction = Direction.DOWN) -> None:
        """Slip `data` into every open connection behind what is already under way in `direction`."""
        for connection in self._open:
            pipe = connection.down if direction is Direction.DOWN else connection.up
            self._flows[direction].enter(pipe, data)

    def after_bytes(self, count: int, fault: Callable[[], None], direction: Direction = Direction.DOWN) -> None:
        """Call `fault`, once, when exactly `count` more bytes have come out in `direction`.

        What is beyond is held back until `fault` returned: with `after_bytes(n, drop)` exactly n bytes come out.
        Several may be set; each counts from its own call.
        """
        self._flows[direction].after(count, fault)

    # --- connections ------------------------------------------------------------------------------------------------

    def _accept(self) -> asyncio.Protocol:
        connection = Connection(
            target=self._target,
            handshake=self.profile.rtt_ms / 1000,
            up=self._flows[Direction.UP],
            down=self._flows[Direction.DOWN],
            on_open=self._opened,
            on_closed=self._open.discard,
        )
        return connection.client

    def _opened(self, connection: Connection) -> None:
        self.connections += 1
        self._open.add(connection)
        if self._refusing:
            connection.reset()
