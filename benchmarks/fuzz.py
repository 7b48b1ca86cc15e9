"""Whether anything that a client sends over a live socket brings the service down, hangs it or stays in it.

frames  100,000 frames over WebSocket, with every field of every message spoilt in turn, under both subprotocols, from
        16 connections at a time. Afterwards: no sequence, no task, no file descriptor is left, no connection was
        closed as an internal error (1011), and a plain generation works.
memory  resident memory at the end against that after the first fifth, in which caches fill. Aim: 10% more at most.

Run: `python -m benchmarks.fuzz [--quick] [--json FILE] [--seed N]`. The engine is scripted: it costs nothing, so that
the frames are what is measured. HTTP is fuzzed by the tests, with schemathesis.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import random
import sys
import threading
import time
from collections import Counter
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from benchmarks.fuzzing.frames import Frames, fields
from cloud_service.app import create_app
from cloud_service.server import CloudServer
from cloud_service.settings import Settings
from demos.side_by_side.hardware import machine
from http_api.serving import listen
from model_runtime.testing import ScriptedEngine
from wire_protocol.codec import codec_for
from wire_protocol.messages import Generate, Hello, terminal

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cloud_service.service import Service
    from model_runtime.core import Cancellation, Chunk, Result

FRAMES, QUICK_FRAMES = 100_000, 4_000
CONNECTIONS = 16
#: Frames that one connection sends at most, where none of them closes it.
LONGEST = 40
#: Seconds for anything to come to its end.
PATIENCE = 60
GROWTH = 1.10


@dataclass
class Outcome:
    frames: int = 0
    connections: int = 0
    seconds: float = 0.0
    #: How connections ended, by close code; 1000 where the client closed. 1006 is a connection dropped because its
    #: close frame could not be sent within the service's second, as on a machine that is busy with something else.
    closes: Counter[int] = field(default_factory=Counter)
    spoilt: Counter[str] = field(default_factory=Counter)
    left_sequences: int = 0
    left_tasks: int = 0
    left_descriptors: int = 0
    mib_before: float = 0.0
    mib_after: float = 0.0

    @property
    def faults(self) -> list[str]:
        """What should not be, in words."""
        unspoilt = fields() - set(self.spoilt)
        wrong = {
            f"{self.closes[1011]} connections closed as an internal error": self.closes[1011],
            f"{self.left_sequences} sequences left": self.left_sequences,
            f"{self.left_tasks} tasks left": self.left_tasks,
            f"{self.left_descriptors} file descriptors left": self.left_descriptors > 0,
            f"never spoilt: {', '.join(sorted(unspoilt))}": unspoilt,
        }
        return [text for text, is_wrong in wrong.items() if is_wrong]


class CountedEngine(ScriptedEngine):
    """Knows how many of its sequences are open, and does not remember every pass."""

    open_sequences = 0

    def open(self) -> int:
        self.open_sequences += 1
        return super().open()

    def fork(self, sequence: int) -> int:
        self.open_sequences += 1
        return super().fork(sequence)

    def close(self, sequence: int) -> None:
        super().close(sequence)
        self.open_sequences -= 1

    def forward(self, chunks: Sequence[Chunk], cancellation: Cancellation | None = None) -> list[Result]:
        self.passes.clear()
        return super().forward(chunks, cancellation)


@dataclass(frozen=True)
class Target:
    """A service in a thread of this process."""

    service: Service
    engine: CountedEngine
    loop: asyncio.AbstractEventLoop
    url: str

    def tasks(self) -> int:
        async def count() -> int:
            return len(asyncio.all_tasks())

        return asyncio.run_coroutine_threadsafe(count(), self.loop).result(PATIENCE)

    def sequences(self) -> int:
        """Open ones that nobody keeps for later."""
        backend = self.service.state.desk.backend  # type: ignore[union-attr]
        return self.engine.open_sequences - backend.occupancy().kept_sequences


@contextmanager
def serving() -> Iterator[Target]:
    ready: Future[tuple[Target, CloudServer]] = Future()

    async def serve() -> None:
        settings = Settings(model="scripted", max_grant=64, linger_ms=5.0, max_generations=8, max_prompt_tokens=500)
        engine = CountedEngine(answer_length=50)
        app = create_app(settings, engine)
        server = CloudServer(app, app.state.service, settings)
        with listen("127.0.0.1", 0) as listener:
            host, port = listener.getsockname()
            running = asyncio.create_task(server.serve(sockets=[listener]))
            await app.state.service.settled.wait()
            target = Target(app.state.service, engine, asyncio.get_running_loop(), f"ws://{host}:{port}/v1/pd")
            ready.set_result((target, server))
            await running

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    target, server = ready.result(PATIENCE)
    try:
        yield target
    finally:
        target.loop.call_soon_threadsafe(setattr, server, "should_exit", True)
        thread.join(PATIENCE)


async def fuzz(target: Target, frames: int, seed: int) -> Outcome:
    """Raises TimeoutError where something hangs."""
    outcome = Outcome()
    await converse(target, outcome, random.Random(seed), subprotocol="pd.v1")  # what is made once is made now
    await settle(target)
    tasks, descriptors = target.tasks(), len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - links that may be gone
    began = time.monotonic()

    async def one(number: int) -> None:
        chance = random.Random(seed * 1_000 + number)
        while outcome.frames < frames:
            await converse(target, outcome, chance, subprotocol=chance.choice(("pd.v1", "pd.v1+json")))
            if outcome.frames >= frames / 5 and not outcome.mib_before:
                outcome.mib_before = resident()

    await asyncio.gather(*map(one, range(CONNECTIONS)))
    outcome.seconds = time.monotonic() - began
    await settle(target)
    outcome.left_sequences = target.sequences()
    outcome.left_tasks = target.tasks() - tasks
    outcome.left_descriptors = len(os.listdir("/proc/self/fd")) - descriptors  # noqa: PTH208
    outcome.mib_after = resident()
    await works(target)
    return outcome


async def converse(target: Target, outcome: Outcome, chance: random.Random, *, subprotocol: str) -> None:
    """One connection, until a frame closes it or it has sent enough."""
    supply, codec = Frames(chance, as_json=subprotocol.endswith("json")), codec_for(subprotocol)
    info = target.engine.info
    prints = (info.tokenizer_fingerprint, info.template_fingerprint) if chance.random() < 0.7 else ("", "")
    opening = connect(target.url, subprotocols=[Subprotocol(subprotocol)], open_timeout=PATIENCE)
    async with asyncio.timeout(PATIENCE), opening as socket:
        outcome.connections += 1
        # Answers are read, or the library would not get as far as the close frame behind them.
        reading = asyncio.create_task(read(socket))
        try:
            if chance.random() < 0.95:
                await socket.send(codec.encode(Hello(1, "fuzz", "", *prints)))
            for _ in range(chance.randrange(1, LONGEST)):
                frame = supply.next()
                await socket.send(frame.data)
                outcome.frames += 1
                outcome.spoilt[frame.spoilt] += 1
                if chance.random() < 0.5:
                    await asyncio.sleep(0)
            await socket.close()
            outcome.closes[1000] += 1
        except ConnectionClosed as closed:
            outcome.closes[1006 if closed.rcvd is None else closed.rcvd.code] += 1
        await reading


async def read(socket: ClientConnection) -> None:
    """Whatever comes, until the connection is closed."""
    with suppress(ConnectionClosed):
        async for _ in socket:
            pass


async def settle(target: Target) -> None:
    """Wait until nothing runs. Raises TimeoutError."""
    async with asyncio.timeout(PATIENCE):
        while target.service.connections or target.sequences():  # noqa: ASYNC110 - nobody announces it
            await asyncio.sleep(0.02)
    await asyncio.sleep(0.3)  # closed connections say so in later rounds of the loop
    gc.collect()


async def works(target: Target) -> None:
    """A plain generation. Raises TimeoutError."""
    codec = codec_for("pd.v1")
    async with asyncio.timeout(PATIENCE), connect(target.url, subprotocols=[Subprotocol("pd.v1")]) as socket:
        info = target.engine.info
        await socket.send(codec.encode(Hello(1, "fuzz", "", info.tokenizer_fingerprint, info.template_fingerprint)))
        await socket.send(codec.encode(Generate("g", 3, prompt=(1, 2))))
        while not terminal(codec.decode_cloud(await socket.recv())):
            pass


def resident() -> float:
    """MiB of this process, which holds the service and its clients."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_FRAMES:,} frames instead of {FRAMES:,}")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, metavar="FILE")
    given = parser.parse_args()
    with serving() as target:
        outcome = asyncio.run(fuzz(target, QUICK_FRAMES if given.quick else FRAMES, given.seed))
    faults = outcome.faults
    growth = outcome.mib_after / outcome.mib_before
    if not given.quick and growth > GROWTH:
        faults.append(f"memory grew by {growth - 1:.0%}")
    print(f"{outcome.frames:,} frames over {outcome.connections:,} connections in {outcome.seconds:.0f} s")
    print(f"{len(fields())} fields, each spoilt {min(outcome.spoilt[name] for name in fields())} times or more")
    print("connections ended with:", ", ".join(f"{code}: {count:,}" for code, count in sorted(outcome.closes.items())))
    print(
        f"left: {outcome.left_sequences} sequences, {outcome.left_tasks} tasks, {outcome.left_descriptors} descriptors"
    )
    print(f"memory: {outcome.mib_before:.0f} MiB after a fifth, {outcome.mib_after:.0f} MiB at the end ({growth:.2f}×)")
    for fault in faults:
        print("MISSED:", fault)
    if given.json is not None:
        given.json.write_text(json.dumps({"machine": machine(), **vars(outcome), "faults": faults}, indent=2))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
