"""How many live streams one core of gateway keeps on time.

Each stream is a WebSocket connection of its own with one generation at 20 tokens/s, and says `progress` when the
SDK would; 50 of them begin in a second. The gateway is pinned to one core, over an *emulated* engine that
gives every generation one token at each multiple of 50 ms; the devices are another process on the other cores. The
engine and its scheduler are a process of their own there (`apart`, as with `pd-cloud serve --instances 1`), or threads
of the gateway on its one core (`within`). A frame is late by the time from its tick until the device has it. Aim: 1,000
streams with a 99th percentile below 50 ms. Beside it llama-cpp-python's own server on the same core, over an emulated
model of the same pace: as it comes, and with the lock taken out that it holds for as long as a stream lasts.
Run: `python -m benchmarks.streams [--quick] [--json FILE] [--streams N …] [--engine apart|within] [--silent]`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.stream_clients import Stream, live, live_sse
from benchmarks.stream_engine import TICK
from demos.side_by_side.hardware import machine
from http_api.serving import run
from model_runtime.testing import ScriptedTokenizer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

AIM_STREAMS, AIM_MS = 1000, 50.0
BEGIN_A_SECOND = 50


@dataclass(frozen=True, slots=True)
class Outcome:
    """So many streams at once. Times in ms."""

    #: Where the engine was: `apart` or `within`.
    engine: str
    streams: int
    frames: int
    late_p50: float
    late_p99: float
    late_max: float
    #: Streams that did not end as they should, and what one of them said.
    faults: int
    fault: str
    #: The gateway's CPU time over the time that all streams ran, of one core.
    cpu: float
    rss_mb: float


@contextmanager
def server(name: str, core: int, *arguments: str) -> Iterator[tuple[int, int]]:
    """Its port and its process id."""
    command = [sys.executable, "-m", f"benchmarks.{name}", str(core), *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline()), process.pid
        finally:
            process.terminate()
            process.wait(30)


def lateness(stream: Stream) -> list[float]:
    """Of each frame, in seconds."""
    first = min(arrival - number * TICK for number, arrival in enumerate(stream.arrivals))
    due = first - first % TICK
    return [arrival - due - number * TICK for number, arrival in enumerate(stream.arrivals)]


def measure(core: int, engine: str, streams: int, tokens: int, paced: bool) -> Outcome:
    tokenizer = ScriptedTokenizer()
    prints = tokenizer.fingerprint, tokenizer.template_fingerprint
    with server("stream_gateway", core, str(streams), engine) as (port, pid):
        started, cpu_before = time.monotonic(), _cpu_seconds(pid)
        ramp = streams / BEGIN_A_SECOND
        found = live(port, streams, tokens=tokens, ramp=ramp, paced=paced, prints=prints)
        seconds, cpu = time.monotonic() - started, _cpu_seconds(pid) - cpu_before
        rss = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize() / 2**20
    late = 1000 * np.array([each for stream in found if stream.arrivals for each in lateness(stream)] or [np.inf])
    faults = [stream.fault for stream in found if stream.fault]
    return Outcome(
        engine,
        streams,
        frames=sum(len(stream.arrivals) for stream in found),
        late_p50=float(np.percentile(late, 50)),
        late_p99=float(np.percentile(late, 99)),
        late_max=float(late.max()),
        faults=len(faults),
        fault=faults[0] if faults else "",
        cpu=cpu / seconds,
        rss_mb=rss,
    )


@dataclass(frozen=True, slots=True)
class PeerOutcome:
    """So many streams asked of llama-cpp-python's server at once."""

    lock: bool
    asked: int
    #: Those that were whole a second after they could have been, and the lateness of their frames in ms.
    live: int
    late_p99: float | None


def measure_peer(core: int, asked: int, tokens: int, *, lock: bool) -> PeerOutcome:
    with server("stream_peer", core, "lock" if lock else "free") as (port, _):
        streams = run(live_sse(port, asked, tokens=tokens, patience=tokens * TICK + 1))
    live_ones = [stream for stream in streams if not stream.fault]
    late = [1000 * each for stream in live_ones for each in lateness(stream)]
    return PeerOutcome(lock, asked, len(live_ones), float(np.percentile(late, 99)) if late else None)


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer streams, for a few seconds")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure there")
    parser.add_argument("--streams", type=int, nargs="+", metavar="N", help="how many at once")
    parser.add_argument("--engine", choices=("apart", "within"), nargs="+", help="where the engine is; both")
    parser.add_argument("--tokens", type=int, metavar="N", help="of each stream")
    parser.add_argument("--silent", action="store_true", help="devices say no progress")
    options = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        print("this needs two cores: one of gateway, and one of devices")
        return 1
    os.sched_setaffinity(0, set(cores[1:]))
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    counts: Sequence[int] = options.streams or ((50, 100) if options.quick else (250, 500, 750, 1000, 1250))
    tokens = options.tokens or (60 if options.quick else 600)
    print(f"EMULATED engine; {1 / TICK:.0f} tokens/s a stream, {tokens} tokens each, progress {not options.silent}")
    print("engine  streams  late p50      p99      max  faults   CPU   memory")
    found = []
    for engine, count in itertools.product(options.engine or ("apart", "within"), counts):
        each = measure(cores[0], engine, count, tokens, not options.silent)
        found.append(each)
        print(
            f"{each.engine:6} {each.streams:8} {each.late_p50:6.1f} ms {each.late_p99:5.1f} ms"
            f" {each.late_max:5.1f} ms {each.faults:7} {each.cpu:5.0%} {each.rss_mb:5.0f} MB {each.fault}",
            flush=True,
        )
    peers = []
    for lock, asked in ((True, 1), (True, 10), (False, 10), (False, 20), (False, 40)):
        peer = measure_peer(cores[0], asked, min(tokens, 100), lock=lock)
        peers.append(peer)
        print(
            f"llama-cpp-python's server, {'as it comes' if lock else 'without its lock'}: {peer.live} of {asked} live, "
            f"late p99 {'-' if peer.late_p99 is None else f'{peer.late_p99:.1f} ms'}",
            flush=True,
        )
    reached = any(each.streams >= AIM_STREAMS and each.late_p99 < AIM_MS and not each.faults for each in found)
    print(
        f"aim {AIM_STREAMS} streams with a 99th percentile below {AIM_MS:.0f} ms: {'reached' if reached else 'MISSED'}"
    )
    if options.json:
        result = {
            "machine": machine(),
            "emulated": "the engine",
            "quick": options.quick,
            "reached": reached,
            "outcomes": [asdict(each) for each in found],
            "llama_cpp_python_server": [asdict(each) for each in peers],
        }
        options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 0 if reached or options.quick else 1


if __name__ == "__main__":
    sys.exit(main())
