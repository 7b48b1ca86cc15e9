"""What the SDK and the service cost on top of the engine that they drive.

decode  tokens per second of the device's engine, through `HybridClient` (ONLY_ON_DEVICE, pacing off) against a bare
        loop of `forward` and argmax, on a model of more than 100 M random parameters. Aim: at least 95%.
ttft    time to first token of the real service, another process over WebSocket on loopback, less that of the same
        engine called directly in this process: template, tokenizer, one prefill pass, argmax. Aim: at most 5 ms.

Both sides of a comparison take turns within one run, and the figure is the median over pairs of neighbours, so that
what else this machine does hits both. Run: `python -m benchmarks.overhead [--quick] [--json FILE]`.
Definitions: docs/metrics.md; how we measure: benchmarks/METHODOLOGY.md.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.big_model import big_model
from demos.side_by_side.cloud_process import CloudProcess, CloudSettings
from demos.side_by_side.hardware import machine
from demos.training.logbook import held_out
from device_sdk import HybridClient, Mode
from model_runtime.core import Chunk, Engine, Message
from model_runtime.loading import load_engine
from speed_controller import PaceSettings, SplitSettings

if TYPE_CHECKING:
    from collections.abc import Sequence

MODELS = Path(__file__).parent.parent / "demos" / "models"
CACHE = Path(__file__).parent.parent / "out" / "benchmarks"
UNPACED = SplitSettings(pace=PaceSettings(mode="off"))


@dataclass(frozen=True)
class Comparison:
    """One figure of each side for each pair, in order of measuring."""

    name: str
    unit: str
    bare: list[float]
    ours: list[float]
    #: Of each pair: what is compared with the aim.
    figure: list[float]
    figure_name: str
    aim: str
    reached: bool

    def lines(self) -> list[str]:
        verdict = "reached" if self.reached else "MISSED"
        return [
            self.name,
            f"  bare engine  {_spread(self.bare)} {self.unit}",
            f"  ours         {_spread(self.ours)} {self.unit}",
            f"  {self.figure_name:11}  {_spread(self.figure)}, aim {self.aim}: {verdict}",
        ]


def _spread(values: Sequence[float]) -> str:
    ordered = sorted(values)
    low, high = ordered[len(ordered) // 10], ordered[-1 - len(ordered) // 10]
    return (
        f"median {statistics.median(ordered):.3f} ({low:.3f} to {high:.3f}, 10th to 90th percentile, n={len(ordered)})"
    )


# --- decode ---------------------------------------------------------------------------------------------------------


async def decode(rounds: int, tokens: int) -> Comparison:
    path = await asyncio.to_thread(big_model, MODELS / "device", CACHE)
    engine = await asyncio.to_thread(load_engine, path, threads=1)
    bare, ours = [], []
    async with HybridClient(device=engine, mode=Mode.ONLY_ON_DEVICE, split=UNPACED) as client:
        for number in range(rounds + 1):
            prompt = f"Round {number}: what was moved, and by whom?"
            answer = await client.generate(prompt, max_tokens=tokens)
            arrivals = answer.report.timeline.arrivals
            if len(arrivals) < tokens // 2:
                continue  # random weights happened to end the answer: too short to time
            mine = (len(arrivals) - 1) / (arrivals[-1] - arrivals[0])
            # The client's thread is idle now; both sides decode as many tokens after the same prompt.
            alone = await asyncio.to_thread(_bare_decode, engine, prompt, len(arrivals))
            if number:  # the first pair is a warm-up
                ours.append(mine)
                bare.append(alone)
    engine.shutdown()
    ratio = [a / b for a, b in zip(ours, bare, strict=True)]
    name = f"decode, {path.parent.name}, {tokens} tokens"
    return Comparison(
        name, "tokens/s", bare, ours, ratio, "ours / bare", "at least 0.95", statistics.median(ratio) >= 0.95
    )


def _bare_decode(engine: Engine, prompt: str, tokens: int) -> float:
    """Tokens per second after the first token."""
    sequence = engine.open()
    try:
        logits = engine.forward([Chunk(sequence, _ids(engine, prompt))])[0].logits[-1]
        token = int(logits.argmax())
        started = time.perf_counter()
        for _ in range(tokens - 1):
            token = int(engine.forward([Chunk(sequence, (token,))])[0].logits[-1].argmax())
        return (tokens - 1) / (time.perf_counter() - started)
    finally:
        engine.close(sequence)


def _ids(engine: Engine, prompt: str) -> list[int]:
    return engine.tokenizer.render_chat([Message(role="user", content=prompt)])


# --- time to first token --------------------------------------------------------------------------------------------


async def ttft(rounds: int, prompt_tokens: int) -> tuple[Comparison, Comparison]:
    """Every pair asks about a document of its own, so that no cache can answer. Also what of each request was spent
    outside of the service's engine, as the service reports it: the same overhead without the noise of the pass."""
    model = MODELS / "cloud" / "model.onnx"
    prompts = [case.messages[0]["content"] for case in held_out("lookup", prompt_tokens, rounds + 3, seed=5)]
    bare, ours, inside = [], [], []
    async with AsyncExitStack() as stack:
        settings = CloudSettings(str(model), CACHE / "cloud.log", threads=1)
        cloud = await stack.enter_async_context(CloudProcess(settings))
        engine = await asyncio.to_thread(load_engine, model, threads=1)
        stack.callback(engine.shutdown)
        client = await stack.enter_async_context(
            HybridClient(cloud=f"ws://127.0.0.1:{cloud.port}", mode=Mode.ONLY_IN_CLOUD, split=UNPACED)
        )
        for number, prompt in enumerate(prompts):
            alone = await asyncio.to_thread(_bare_ttft, engine, prompt)
            answer = await client.generate(prompt, max_tokens=1)
            if number >= 3 and answer.report.ttft_ms is not None:  # the first ones are a warm-up
                bare.append(alone)
                ours.append(answer.report.ttft_ms)
                inside.append(answer.report.cloud_busy_ms or 0.0)
    title = f"time to first token, about {prompt_tokens} prompt tokens, against the engine"
    return _added(f"{title} called directly", bare, ours), _added(f"{title} inside the service", inside, ours)


def _added(name: str, bare: list[float], ours: list[float]) -> Comparison:
    added = [a - b for a, b in zip(ours, bare, strict=True)]
    return Comparison(name, "ms", bare, ours, added, "added", "at most 5 ms", statistics.median(added) <= 5)


def _bare_ttft(engine: Engine, prompt: str) -> float:
    """Milliseconds, as the service does it: text in, token out."""
    started = time.perf_counter()
    sequence = engine.open()
    int(engine.forward([Chunk(sequence, _ids(engine, prompt))])[0].logits[-1].argmax())
    took = time.perf_counter() - started
    engine.close(sequence)
    return 1000 * took


# --- command line ---------------------------------------------------------------------------------------------------


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rounds: under a minute once the model is made")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure there")
    options = parser.parse_args()
    rounds, tokens = (5, 32) if options.quick else (20, 64)
    found = [asyncio.run(decode(rounds, tokens)), *asyncio.run(ttft(4 * rounds, 300))]
    for comparison in found:
        print("\n".join(comparison.lines()))
    if options.json:
        result = {"machine": machine(), "quick": options.quick, "comparisons": [asdict(each) for each in found]}
        options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 0 if all(comparison.reached for comparison in found) else 1


if __name__ == "__main__":
    sys.exit(main())
