"""What a stream of events comes to, for callers that want the answer and not the events."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from device_sdk.errors import GenerationCancelled
from device_sdk.events import Cancelled, Event, Failed, Finished
from device_sdk.report import Answer


async def answer_of(events: AsyncGenerator[Event, None], *, cancelled: str) -> Answer:
    """Read `events` to their terminal one, and close them however this ends.

    Raises the error of Failed, and GenerationCancelled, which says `cancelled`, for Cancelled. Cancelling this cancels
    the generation.
    """
    async with aclosing(events):
        async for event in events:
            match event:
                case Finished(answer=answer):
                    return answer
                case Failed(error=error):
                    raise error
                case Cancelled(answer=answer):
                    raise GenerationCancelled(cancelled, answer=answer)
                case _:
                    pass
    raise AssertionError("a stream ended without a terminal event")
