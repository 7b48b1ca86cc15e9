"""Whatever a client sends, the service lives on and frees what it had."""

from __future__ import annotations

import asyncio
import random

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed

from model_runtime.testing import ScriptedEngine
from wire_protocol.codec import codec_for
from wire_protocol.messages import DeviceMessage, Generate
from wire_protocol.testing import device_messages

frames = st.one_of(st.binary(max_size=200), st.text(max_size=50), device_messages())


@pytest.mark.parametrize("subprotocol", ["pd.v1", "pd.v1+json"])
def test_any_conversation(serve, device, subprotocol):
    running = serve(ScriptedEngine(answer_length=50), max_prompt_tokens=500)
    codec = codec_for(subprotocol)
    seed = random.Random(5)

    def damaged(message: DeviceMessage) -> bytes | str:
        """Now and then, one byte of a message is another one."""
        frame = codec.encode(message)
        if isinstance(frame, str) or seed.random() < 0.8:
            return frame
        place = seed.randrange(len(frame))
        return frame[:place] + bytes([seed.randrange(256)]) + frame[place + 1 :]

    async def converse(conversation: list[bytes | str | DeviceMessage]) -> None:
        async with device(running, subprotocol=subprotocol, text=seed.random() < 0.5) as one:
            try:
                for frame in conversation:
                    await one.socket.send(frame if isinstance(frame, bytes | str) else damaged(frame))
                    await asyncio.sleep(0)
            except ConnectionClosed as closed:
                assert closed.rcvd is None or closed.rcvd.code != 1011  # noqa: PT017 - whoever is at fault is named

    @settings(
        deadline=None,
        max_examples=25,
        phases=[Phase.generate],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(st.lists(frames, min_size=1, max_size=12))
    def check(conversation: list[bytes | str | DeviceMessage]) -> None:
        asyncio.run(converse(conversation))

    async def afterwards() -> None:
        await running.emptied()
        async with device(running) as one:
            await one.send(Generate("g", 3, prompt=(1, 2)))
            assert (await one.until_terminal("g"))[-1].reason in ("grant", "eos")

    check()
    asyncio.run(afterwards())
