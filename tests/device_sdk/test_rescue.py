"""Either side dies in the middle of an answer: the other one finishes it, and the app sees that as an event."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from device_sdk import Finished, HybridClient, Notice, PaceSettings, Source, SplitSettings, Timeouts, Token
from device_sdk.testing import LinkProxy
from model_runtime.core import Cancellation, Chunk, Result
from model_runtime.testing import Faults, ScriptedEngine
from tests.device_sdk.conftest import PROMPT, per_token

SPLIT = SplitSettings(grant=8, max_grant=8, pace=PaceSettings(mode="off"))


class Starved(ScriptedEngine):
    """Gets no more memory from its pass `at` on, as under a limit of the operating system's that does not kill."""

    def __init__(self, at: int) -> None:
        super().__init__(delay=per_token(0.002))
        self.at = at

    def forward(self, chunks: Sequence[Chunk], cancellation: Cancellation | None = None) -> list[Result]:
        if len(self.passes) >= self.at:
            raise MemoryError("cannot allocate 64 MiB")
        return super().forward(chunks, cancellation)


def broken(at: int) -> ScriptedEngine:
    return ScriptedEngine(delay=per_token(0.002), faults=Faults(fail_at=at))


async def run(client: HybridClient) -> tuple[list[Notice], Finished]:
    events = [event async for event in client.stream(PROMPT)]
    assert isinstance(events[-1], Finished)
    assert [event.index for event in events if isinstance(event, Token)] == list(
        range(len(events[-1].answer.token_ids))
    )
    return [event for event in events if isinstance(event, Notice)], events[-1]


# 8 passes warm the engine up, a few read the prompt.
@pytest.mark.parametrize("at", [9, 20, 25], ids=["reading", "going on", "later"])
@pytest.mark.parametrize(("device", "why"), [(broken, "injected"), (Starved, "MemoryError: cannot allocate")])
async def test_a_device_that_dies_has_the_cloud_finish(serve, own_answer, device, why: str, at: int) -> None:
    running = serve(ScriptedEngine())
    async with HybridClient(device=device(at), cloud=running.url, split=SPLIT) as client:
        notices, finished = await run(client)
    assert finished.answer.token_ids == own_answer()
    assert [notice.kind for notice in notices] in (["device_failed"], ["device_unusable"])
    assert why in notices[0].message
    assert finished.answer.report.spans[-1].source is Source.CLOUD


async def test_a_cloud_that_goes_has_the_device_finish(serve, own_answer) -> None:
    running = serve(ScriptedEngine(delay=lambda _: 0.02))
    async with LinkProxy(running.host, running.port) as link:
        client = HybridClient(
            device=ScriptedEngine(delay=per_token(0.004)), cloud=link.url(), split=SPLIT, timeouts=Timeouts(idle=0.3)
        )
        async with client:
            notices, answer = list[Notice](), None
            async for event in client.stream(PROMPT):
                if isinstance(event, Token) and event.index == 2:
                    link.drop()
                if isinstance(event, Notice):
                    notices.append(event)
                answer = event
    assert isinstance(answer, Finished)
    assert answer.answer.token_ids == own_answer()
    assert [notice.kind for notice in notices] == ["cloud_lost"]
    assert [span.source for span in answer.answer.report.spans] == [Source.CLOUD, Source.DEVICE]
