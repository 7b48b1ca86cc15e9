"""Whether a service with several engine processes keeps its word for long, whatever its clients and processes do.

Real `pd-cloud`, real engine processes (the bundled device's model on llama.cpp, one thread each; by default one that
prefills and two that decode), real sockets. Clients take answers, stop them, extend them, have no time for them and
vanish in the middle, over WebSocket and OpenAI's API; meanwhile engine processes are killed, one after another.

ends    every generation whose client stays ends in exactly one terminal event, with each token once and in order.
left    afterwards: no generation, no KV set aside, no task, no file descriptor, no shared memory, no process too many;
        and every place of every instance can be taken.
memory  of the service at the end, against that after the first fifth, in which caches fill. Aim: 10% more at most.

Run: `python -m benchmarks.soak [--quick] [--json FILE] [--generations N] [--seed N]`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from benchmarks.soaking.clients import PATIENCE, Client, Record
from benchmarks.soaking.service import STATE
from cloud_service.pool.shared_kv import PREFIX
from demos.side_by_side.hardware import machine
from model_runtime.loading import load_tokenizer_of

MODEL = Path("demos/models/device/model.gguf")
GENERATIONS, QUICK = 10_000, 300
KILLS, QUICK_KILLS = 40, 4
CLIENTS, PLACES = 12, 4
GROWTH = 1.10
SETTINGS: dict[str, Any] = {
    "model": str(MODEL),
    "model_name": "soak",
    "port": 0,
    "threads": 1,
    "refine": "head-tail",
    "context_length": 512,
    "kv_tokens": 4096,
    "max_sequences": PLACES,
    "kept_sequences": 8,
    "queue_depth": 2 * CLIENTS,
    "max_generations": 4 * CLIENTS,
    "linger_ms": 20.0,
    "restart_limit": 1_000_000,
    "drain_ms": 2_000.0,
    "log_level": "error",
}


@dataclass
class Outcome:
    record: Record = field(default_factory=Record)
    seconds: float = 0.0
    kills: int = 0
    crashes: int = 0
    left: dict[str, int] = field(default_factory=dict)
    mib_before: float = 0.0
    mib_after: float = 0.0
    engine_mib_before: float = 0.0
    engine_mib_after: float = 0.0
    metrics: dict[str, float] = field(default_factory=dict)

    @property
    def growth(self) -> float:
        return self.mib_after / self.mib_before if self.mib_before else float("nan")

    @property
    def faults(self) -> list[str]:
        """What should not be, in words."""
        record = self.record
        ended = record.ends.total() + record.dropped
        return [
            *sorted(set(record.faults)),
            *([f"{record.begun} generations were begun and {ended} ended"] if record.begun != ended else []),
            *(f"{count} {what} left" for what, count in self.left.items() if count > 0),
        ]


@dataclass(frozen=True)
class Target:
    port: int

    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = httpx.get(f"http://127.0.0.1:{self.port}{STATE}", timeout=PATIENCE).json()
        return found

    async def settled(self) -> dict[str, Any]:
        """The state once nothing runs and all instances are ready. Raises TimeoutError."""
        async with asyncio.timeout(PATIENCE):
            while True:
                state = await asyncio.to_thread(self.state)
                quiet = state["generations"] == 0 and state["connections"] == 0
                if quiet and all(each["ready"] and not each["live"] for each in state["instances"]):
                    break
                await asyncio.sleep(0.2)
        await asyncio.sleep(1.0)  # closed connections say so in later rounds of the loop
        return await asyncio.to_thread(self.state)

    def metrics(self) -> dict[str, float]:
        text = httpx.get(f"http://127.0.0.1:{self.port}/metrics", timeout=PATIENCE).text
        wanted = ("pd_moved_requests_total", "pd_forwarded_requests_total", "pd_kv_transfer", "pd_role_changes_total")
        lines = (line.rpartition(" ") for line in text.splitlines() if line.startswith(wanted))
        return {name: float(value) for name, _, value in lines if "_bucket" not in name and "_created" not in name}


@contextmanager
def serving(instances: int, roles: str) -> Iterator[Target]:
    settings = SETTINGS | {"instances": instances, "roles": roles}
    command = [sys.executable, "-m", "benchmarks.soaking.service", json.dumps(settings)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            port = process.stdout.readline()
            assert port, "the service did not start"
            yield Target(int(port))
        finally:
            process.terminate()
            process.wait(PATIENCE)


async def soak(target: Target, generations: int, kills: int, seed: int) -> Outcome:
    outcome = Outcome()
    record = outcome.record
    tokenizer = load_tokenizer_of(MODEL)
    prints = tokenizer.fingerprint, tokenizer.template_fingerprint
    warming = Record()

    def clients(into: Record, count: int, most: int) -> list[Client]:
        return [
            Client(
                target.port,
                prints,
                tokenizer.vocabulary_size,
                random.Random(seed * 1_000 + number),
                into,
                lambda: into.begun < most,
            )
            for number in range(count)
        ]

    await asyncio.gather(*(client.run() for client in clients(warming, CLIENTS, 3 * CLIENTS)))
    before = await target.settled()
    began = time.monotonic()
    done = asyncio.Event()
    killing = asyncio.create_task(kill_some(target, outcome, generations, kills, random.Random(seed), done))
    await asyncio.gather(*(client.run() for client in clients(record, CLIENTS, generations)))
    done.set()
    await killing
    outcome.seconds = time.monotonic() - began
    after = await target.settled()
    outcome.mib_after, outcome.engine_mib_after = resident(after)
    outcome.crashes = sum(each["crashes"] for each in after["instances"])
    outcome.metrics = await asyncio.to_thread(target.metrics)
    await fill(target, clients(record, PLACES * len(after["instances"]), record.begun + 3 * CLIENTS))
    last = await target.settled()
    outcome.left = {
        "generations": last["generations"],
        "generations at instances": sum(each["legs"] for each in last["instances"]),
        "instances with KV set aside": sum(each["kv_share"] > 0 for each in last["instances"]),
        "tasks": last["tasks"] - before["tasks"],
        "file descriptors": last["descriptors"] - before["descriptors"],
        "processes": len(children(last["pid"])) - len(children_expected(last)),
        "segments of shared memory": segments(),
    }
    record.faults += warming.faults
    return outcome


async def fill(target: Target, clients: list[Client]) -> None:
    """As many at once as there are places."""
    await asyncio.gather(*(client.run() for client in clients))


async def kill_some(
    target: Target, outcome: Outcome, generations: int, kills: int, dice: random.Random, done: asyncio.Event
) -> None:
    """Engine processes, spread evenly over the generations; and the memory after the first fifth."""
    while not done.is_set():
        begun = outcome.record.begun
        if begun >= generations / 5 and not outcome.mib_before:
            outcome.mib_before, outcome.engine_mib_before = resident(await asyncio.to_thread(target.state))
        if begun >= (outcome.kills + 0.5) * generations / kills and outcome.kills < kills:
            state = await asyncio.to_thread(target.state)
            pids = [each["pid"] for each in state["instances"] if each["ready"] and each["pid"]]
            if pids:
                os.kill(dice.choice(pids), signal.SIGKILL)
                outcome.kills += 1
        await asyncio.sleep(0.05)


def segments() -> int:
    """KV caches in shared memory."""
    return len(list(Path("/dev/shm").glob(f"{PREFIX}*")))  # noqa: S108


def children(pid: int) -> list[int]:
    return [
        int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()
    ]


def children_expected(state: dict[str, Any]) -> list[int]:
    return [each["pid"] for each in state["instances"] if each["pid"]]


def resident(state: dict[str, Any]) -> tuple[float, float]:
    """MiB of the service, and of its largest engine process."""

    def mib(pid: int) -> float:
        try:
            pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        except (FileNotFoundError, ProcessLookupError):
            return 0.0
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    return mib(state["pid"]), max(mib(each["pid"]) for each in state["instances"] if each["pid"])


def show(outcome: Outcome) -> None:
    record = outcome.record
    print(f"{record.begun:,} generations, {record.tokens:,} tokens over WebSocket, in {outcome.seconds:.0f} s")
    print(f"{outcome.kills} engine processes killed; {outcome.crashes} died and were replaced")
    for title, counts in (("what clients did", record.behaviours), ("how generations ended", record.ends)):
        print(f"\n{title}")
        for name, count in counts.most_common():
            print(f"  {count:>7,}  {name}")
    print(f"  {record.dropped:>7,}  left behind by their clients")
    print(f"  {record.reread:>7,}  answered from a part of the prompt, read a second time")
    print("\nin the pool")
    for name, value in sorted(outcome.metrics.items()):
        print(f"  {value:>14,.2f}  {name}")
    print("\nleft: " + ", ".join(f"{count} {what}" for what, count in outcome.left.items()))
    print(
        f"memory: {outcome.mib_before:.0f} MiB after a fifth, {outcome.mib_after:.0f} at the end: {outcome.growth:.2f}×"
    )
    print(f"largest engine process: {outcome.engine_mib_before:.0f} and {outcome.engine_mib_after:.0f} MiB")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK:,} generations instead of {GENERATIONS:,}")
    parser.add_argument("--generations", type=int, metavar="N")
    parser.add_argument("--instances", type=int, default=3, metavar="N")
    parser.add_argument("--roles", default="prefill=1,decode=2")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, metavar="FILE")
    given = parser.parse_args()
    generations = given.generations or (QUICK if given.quick else GENERATIONS)
    kills = QUICK_KILLS if generations <= 1_000 else max(QUICK_KILLS, KILLS * generations // GENERATIONS)
    with serving(given.instances, given.roles) as target:
        outcome = asyncio.run(soak(target, generations, kills, given.seed))
    show(outcome)
    faults = outcome.faults
    if generations >= GENERATIONS and outcome.growth > GROWTH:
        faults.append(f"the service's memory grew by {outcome.growth - 1:.0%}")
    for fault in faults:
        print("MISSED:", fault)
    if given.json is not None:
        facts = {"machine": machine(), "roles": given.roles, **vars(outcome), "record": vars(outcome.record)}
        given.json.write_text(json.dumps({**facts, "faults": faults}, indent=2))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
