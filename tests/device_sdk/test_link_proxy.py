"""The emulated link over real sockets: bytes unchanged and in order, never early, and every fault as promised."""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from device_sdk.testing import LINKS, LOOPBACK, Direction, LinkProfile, LinkProxy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

SLOW = LinkProfile("slow", rtt_ms=40, jitter_ms=5, up_kbps=8_000, down_kbps=16_000)


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
        writer.write(b"<end>")
    except ConnectionError:
        pass
    finally:
        writer.close()


@asynccontextmanager
async def served(profile: LinkProfile = LOOPBACK, handler: Handler = echo, seed: int = 0) -> AsyncIterator[LinkProxy]:
    server = await asyncio.start_server(handler, "127.0.0.1", 0)
    try:
        async with LinkProxy("127.0.0.1", server.sockets[0].getsockname()[1], profile, seed=seed) as link:
            yield link
    finally:
        server.close()
        await server.wait_closed()
        await asyncio.sleep(0.01)  # let the handlers of the server see that their peers are gone


@asynccontextmanager
async def connected(link: LinkProxy) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection(link.host, link.port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - the proxy tells by counts, not by events
            await asyncio.sleep(0.001)


async def exchange(link: LinkProxy, messages: list[bytes]) -> bytes:
    """Send all, end, and read until the echo ends."""
    async with connected(link) as (reader, writer):
        reading = asyncio.create_task(reader.read())
        for message in messages:
            writer.write(message)
            await writer.drain()
        writer.write_eof()
        return await reading


profiles = st.builds(
    LinkProfile,
    name=st.just("any"),
    rtt_ms=st.floats(0, 20),
    jitter_ms=st.floats(0, 5),
    up_kbps=st.none() | st.floats(50_000, 1_000_000),
    down_kbps=st.none() | st.floats(50_000, 1_000_000),
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(messages=st.lists(st.binary(min_size=1, max_size=5_000), max_size=8), profile=profiles, seed=st.integers(0, 99))
def test_bytes_come_back_unchanged_and_in_order_whatever_the_profile(
    messages: list[bytes], profile: LinkProfile, seed: int
) -> None:
    async def main() -> None:
        async with served(profile, seed=seed) as link:
            sent = b"".join(messages)
            assert await exchange(link, messages) == sent + b"<end>"
            assert (link.bytes_up, link.bytes_down) == (len(sent), len(sent) + 5)
            assert link.connections == 1

    asyncio.run(main())


async def test_many_connections_share_a_link_and_keep_apart() -> None:
    payloads = [random.Random(n).randbytes(400_000) for n in range(4)]
    async with served(LINKS["5g"]) as link:
        answers = await asyncio.gather(*(exchange(link, [payload]) for payload in payloads))
        assert answers == [payload + b"<end>" for payload in payloads]
        assert link.connections == 4


async def test_a_round_trip_is_never_shorter_than_the_profile_says() -> None:
    async with served(SLOW) as link, connected(link) as (reader, writer):
        await asyncio.sleep(SLOW.rtt_ms / 1000)  # the handshake
        for size in (1, 2_000, 20_000):
            start = time.perf_counter()
            writer.write(bytes(size))
            await reader.readexactly(size)
            wire = size * 8 / 8_000_000 + min(size, 1_440) * 8 / 16_000_000
            assert time.perf_counter() - start >= SLOW.rtt_ms / 1000 + wire


async def test_connecting_costs_a_round_trip() -> None:
    async with served(SLOW) as link:
        start = time.perf_counter()
        async with connected(link) as (reader, writer):
            writer.write(b"x")
            await reader.readexactly(1)
        assert time.perf_counter() - start >= 2 * SLOW.rtt_ms / 1000


async def test_a_stall_holds_everything_and_resuming_loses_nothing() -> None:
    async with served() as link, connected(link) as (reader, writer):
        writer.write(b"before")
        assert await reader.readexactly(6) == b"before"
        with link.stalled():
            writer.write(b"during")
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(reader.readexactly(1), 0.1)
            assert link.open_connections == 1
        writer.write(b"after")
        assert await reader.readexactly(11) == b"duringafter"


async def test_one_direction_can_stall_alone() -> None:
    async with served() as link, connected(link) as (reader, writer):
        with link.stalled(Direction.DOWN):
            writer.write(b"heard")
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(reader.readexactly(1), 0.1)
            assert link.bytes_up == 5
            assert link.bytes_down == 0
        assert await reader.readexactly(5) == b"heard"


async def test_a_drop_resets_both_sides() -> None:
    lost = asyncio.Event()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.read()
        except ConnectionResetError:
            lost.set()
        writer.close()

    async with served(handler=listen) as link, connected(link) as (reader, writer):
        writer.write(b"x")
        await until(lambda: link.bytes_up == 1)
        link.drop()
        with pytest.raises(ConnectionResetError):
            await reader.read()
        await asyncio.wait_for(lost.wait(), 5)
        async with connected(link):  # a later connection is served
            await until(lambda: link.connections == 2)


async def test_a_close_ends_both_sides_in_good_order() -> None:
    ended = asyncio.Event()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.read() == b"x"
        ended.set()
        writer.close()

    async with served(handler=listen) as link, connected(link) as (reader, writer):
        writer.write(b"x")
        await until(lambda: link.bytes_up == 1)
        link.close()
        assert await reader.read() == b""
        await asyncio.wait_for(ended.wait(), 5)


@pytest.mark.parametrize("count", [1, 7, 4_999, 5_000, 5_001])
async def test_a_fault_after_n_bytes_lets_exactly_n_bytes_through(count: int) -> None:
    sent = random.Random(count).randbytes(20_000)
    async with served() as link, connected(link) as (reader, writer):
        link.after_bytes(count, link.close)
        writer.write(sent)
        assert await reader.read() == sent[:count]
        assert link.bytes_down == count


async def test_a_drop_after_n_bytes_delivers_them_first() -> None:
    async with served() as link, connected(link) as (reader, writer):
        link.after_bytes(1_000, link.drop)
        writer.write(bytes(3_000))
        assert await reader.readexactly(1_000) == bytes(1_000)
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)


async def test_faults_after_several_counts_each_happen_once_and_in_order() -> None:
    happened: list[int] = []
    async with served() as link, connected(link) as (reader, writer):
        for count in (30, 10, 20, 10):
            link.after_bytes(count, lambda count=count: happened.append(count))  # type: ignore[misc]
        writer.write(bytes(25))
        await reader.readexactly(25)
        assert happened == [10, 10, 20]
        link.after_bytes(6, lambda: happened.append(link.bytes_up), Direction.UP)
        writer.write(bytes(25))
        await reader.readexactly(25)
        assert happened == [10, 10, 20, 31, 30]


async def test_garbage_comes_out_between_what_was_sent_before_and_after() -> None:
    async with served() as link, connected(link) as (reader, writer):
        writer.write(b"before")
        assert await reader.readexactly(6) == b"before"
        link.garbage(b"\xff\x00garbage")
        writer.write(b"after")
        assert await reader.readexactly(14) == b"\xff\x00garbageafter"
        link.garbage(b"up", Direction.UP)
        assert await reader.readexactly(2) == b"up"


async def test_an_added_delay_is_kept_and_ends_with_the_block() -> None:
    async with served() as link, connected(link) as (reader, writer):
        with link.delayed(0.06):
            start = time.perf_counter()
            writer.write(b"x")
            await reader.readexactly(1)
            assert time.perf_counter() - start >= 0.12
        writer.write(b"y")
        assert await reader.readexactly(1) == b"y"


async def test_while_refusing_new_connections_are_reset_and_old_ones_live() -> None:
    async with served() as link, connected(link) as (reader, writer):
        writer.write(b"x")
        await reader.readexactly(1)
        with link.refusing():
            async with connected(link) as (late_reader, _):
                with pytest.raises(ConnectionResetError):
                    await late_reader.read()
            writer.write(b"y")
            assert await reader.readexactly(1) == b"y"
        assert await exchange(link, [b"again"]) == b"again<end>"


async def test_a_server_that_is_not_there_looks_like_a_reset_and_may_come_back() -> None:
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    async with LinkProxy("127.0.0.1", port) as link:
        async with connected(link) as (reader, _):
            with pytest.raises(ConnectionResetError):
                await reader.read()
        server = await asyncio.start_server(echo, "127.0.0.1", port)
        assert await exchange(link, [b"back"]) == b"back<end>"
        server.close()
        await server.wait_closed()
        await asyncio.sleep(0.01)


async def test_ending_the_proxy_with_traffic_under_way_leaves_no_task() -> None:
    before = asyncio.all_tasks()
    async with served(SLOW) as link:
        readers = []
        for _ in range(3):
            reader, writer = await asyncio.open_connection(link.host, link.port)
            writer.write(bytes(100_000))
            readers.append((reader, writer))
        await asyncio.sleep(0.06)
    assert link.open_connections == 0
    for reader, writer in readers:
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()
    await asyncio.sleep(0.01)
    assert asyncio.all_tasks() == before


async def test_url_names_the_device_side() -> None:
    async with served() as link:
        assert link.url() == f"ws://127.0.0.1:{link.port}"
        assert link.port != 0
