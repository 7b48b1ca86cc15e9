"""A WebSocket server that greets properly and then does what the test says."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Literal

import websockets
from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as serve_websocket

from model_runtime.testing import ScriptedTokenizer
from wire_protocol.codec import Codec, codec_for
from wire_protocol.messages import Generate, Limits, Welcome

#: What happens on a `generate`.
Behaviour = Callable[[ServerConnection, Codec, Generate], Awaitable[Any]]


@contextlib.asynccontextmanager
async def lying_service(
    behave: Behaviour,
    travel: Literal["ids", "text"] = "ids",
    fingerprint: str | None = None,
    offers: tuple[Literal["constraint", "reread"], ...] = (),
) -> AsyncIterator[str]:
    tokenizer = ScriptedTokenizer()

    async def handle(socket: ServerConnection) -> None:
        codec = codec_for(socket.subprotocol)
        await socket.recv()
        welcome = Welcome(
            version=1,
            server="liar",
            model="liar",
            tokenizer=fingerprint or tokenizer.fingerprint,
            template=tokenizer.template_fingerprint,
            limits=Limits(10_000, 1_000, 8, 2**20),
            travel=travel,
            offers=offers,
        )
        await socket.send(codec.encode(welcome))
        with contextlib.suppress(websockets.ConnectionClosed):
            async for frame in socket:
                message = codec.decode_device(frame)
                if isinstance(message, Generate):
                    await behave(socket, codec, message)

    async with serve_websocket(handle, "127.0.0.1", 0, subprotocols=["pd.v1"]) as server:  # type: ignore[list-item]
        port = server.sockets[0].getsockname()[1]
        yield f"ws://127.0.0.1:{port}"
