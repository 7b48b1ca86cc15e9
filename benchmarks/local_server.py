"""What the device's own OpenAI server costs on top of the SDK that it serves.

ttft    time to first token as the official `openai` client sees it in a stream, over HTTP on loopback from a process of
        its own, less the time to first token that the SDK reports of the same answer: HTTP, JSON, validation, chat
        template and the client's own part. Aim: at most 10 ms in the median.

Run: `python -m benchmarks.local_server [--quick] [--json FILE]`. Every prompt is another, so that no cache answers.
How we measure: benchmarks/METHODOLOGY.md.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import openai

from benchmarks.overhead import CACHE, MODELS, Comparison
from demos.side_by_side.cloud_process import CloudProcess, CloudSettings
from demos.side_by_side.hardware import machine
from demos.training.logbook import held_out

PD_LOCAL = (sys.executable, "-m", "device_sdk.local_server")
#: The first ones are a warm-up.
WARM_UP = 3


@dataclass(frozen=True, slots=True)
class LocalSettings(CloudSettings):
    """What `pd-local serve` is started with."""

    def arguments(self, port: int) -> list[str]:
        common = ["serve", "--json", "--device", self.model, "--port", str(port)]
        return [*common, "--threads", str(self.threads), "--warm-prompts", "0", "--pace-ms", "0"]


async def ttft(rounds: int, prompt_tokens: int) -> Comparison:
    """Both figures are of the same answers."""
    cases = held_out("lookup", prompt_tokens, rounds + WARM_UP, seed=6)
    inside, outside = [], []
    settings = LocalSettings(str(MODELS / "device" / "model.onnx"), CACHE / "local.log", threads=1)
    async with CloudProcess(settings, PD_LOCAL) as server:
        url = f"http://127.0.0.1:{server.port}/v1"
        async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:
            [model] = (await client.models.list()).data
            for case in cases:
                first, reported = await _ask(client, model.id, case.messages[0]["content"])
                outside.append(first)
                inside.append(reported)
    inside, outside = inside[WARM_UP:], outside[WARM_UP:]
    added = [seen - told for seen, told in zip(outside, inside, strict=True)]
    name = (
        f"time to first token, about {prompt_tokens} prompt tokens: as the SDK reports it, as the openai client sees it"
    )
    return Comparison(name, "ms", inside, outside, added, "added", "at most 10 ms", statistics.median(added) <= 10)


async def _ask(client: openai.AsyncOpenAI, model: str, prompt: str) -> tuple[float, float]:
    """Milliseconds to the first text, as seen here and as reported."""
    started = time.perf_counter()
    first = 0.0
    stream = await client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": prompt}], temperature=0, max_tokens=8, stream=True
    )
    async for chunk in stream:
        if not first and chunk.choices and chunk.choices[0].delta.content:
            first = time.perf_counter() - started
    return 1000 * first, float(chunk.pd_device["ttft_ms"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rounds: under a minute")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure there")
    options = parser.parse_args()
    found = asyncio.run(ttft(10 if options.quick else 80, 300))
    print("\n".join(found.lines()))
    if options.json:
        result = {"machine": machine(), "quick": options.quick, "comparisons": [asdict(found)]}
        options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 0 if found.reached else 1


if __name__ == "__main__":
    sys.exit(main())
