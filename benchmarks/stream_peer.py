"""llama-cpp-python's own server on one core, over a model that says one word at each multiple of 50 ms. Emulated.

Its app holds a lock for as long as a stream lasts, so that one stream is live at a time; with `free` the lock is taken
out, to see what its front end alone can carry. A process of its own, started by `benchmarks.streams`; prints its port.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import uvicorn
from llama_cpp.server import app as peer
from llama_cpp.server.settings import ModelSettings, ServerSettings

from benchmarks.stream_engine import TICK, Ticks
from http_api.serving import listen


class Model:
    """As much of `llama_cpp.Llama` as the endpoint asks for."""

    def __call__(self, prompt: str, max_tokens: int, **_: Any) -> Iterator[dict[str, Any]]:
        def chunks() -> Iterator[dict[str, Any]]:
            until_next_tick = Ticks()
            for _ in range(max_tokens):
                time.sleep(until_next_tick(None))
                yield {"choices": [{"text": " the", "index": 0, "finish_reason": None}], "created": time.monotonic()}

        return chunks()


async def without_lock() -> AsyncIterator[Any]:
    yield lambda name: Model()


def main() -> None:
    core, free = int(sys.argv[1]), sys.argv[2] == "free"
    os.sched_setaffinity(0, {core})
    peer.set_llama_proxy = lambda model_settings: None
    peer._llama_proxy = lambda name: Model()
    if free:
        peer.get_llama_proxy = without_lock
    # As it is meant to be used with several clients: a new request does not cut off the one before.
    settings = ServerSettings(interrupt_requests=False)
    app = peer.create_app(server_settings=settings, model_settings=[ModelSettings(model="emulated")])
    peer.llama_cpp.Llama.__call__ = Model.__call__
    with listen("127.0.0.1", 0) as listener, contextlib.suppress(KeyboardInterrupt):
        print(listener.getsockname()[1], flush=True)
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", access_log=False))
        asyncio.run(server.serve(sockets=[listener]))


assert TICK == 0.05, "the model's pace is the gateway's"

if __name__ == "__main__":
    main()
