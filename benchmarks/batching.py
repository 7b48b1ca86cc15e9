"""What continuous batching costs: tokens per second of the service's scheduler on llama.cpp, and of a bare loop of
`forward` and argmax over the same batch, on a model of more than 100 M random parameters. Aim: at least 95%.

Both decode as many tokens for as many sequences after prompts of the same length, prefill not counted, in turns within
one run. Run: `python -m benchmarks.batching [--quick] [--json FILE]`.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.big_engine import big_engine, decode, prefill, random_prompt
from benchmarks.driving import PASS_TOKENS, Driver, Request
from demos.side_by_side.hardware import machine

if TYPE_CHECKING:
    from model_runtime.core import Engine

PROMPT = 64
AIM = 0.95


def bare(engine: Engine, batch: int, tokens: int, dice: random.Random) -> float:
    """Tokens per second."""
    sequences = prefill(engine, [random_prompt(PROMPT, dice) for _ in range(batch)], PASS_TOKENS)
    started = time.perf_counter()
    decode(engine, sequences, tokens)
    seconds = time.perf_counter() - started
    for sequence in sequences:
        engine.close(sequence)
    return batch * tokens / seconds


def ours(driver: Driver, batch: int, tokens: int, dice: random.Random) -> float:
    """Tokens per second: what `tokens` more for each of the batch take."""
    prompts = [random_prompt(PROMPT, dice) for _ in range(2 * batch)]
    short = driver.run(Request(prompt, 1) for prompt in prompts[:batch])
    long = driver.run(Request(prompt, 1 + tokens) for prompt in prompts[batch:])
    return batch * tokens / (long - short)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rounds and tokens")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure there")
    options = parser.parse_args()
    rounds, tokens = (2, 16) if options.quick else (5, 64)
    dice = random.Random(1)
    samples: dict[int, list[tuple[float, float]]] = {}
    print("batch  bare tokens/s  ours tokens/s  ours / bare (10th to 90th percentile)")
    for batch in (1, 4, 8):
        alone = big_engine(batch, 4096 * 2)
        driver = Driver(big_engine(batch, 4096 * 2), batch)
        pairs = [(bare(alone, batch, tokens, dice), ours(driver, batch, tokens, dice)) for _ in range(rounds + 1)][1:]
        alone.shutdown()
        driver.close()
        samples[batch] = pairs
        ratios = sorted(mine / theirs for theirs, mine in pairs)
        low, high = ratios[len(ratios) // 10], ratios[-1 - len(ratios) // 10]
        print(
            f"{batch:5} {statistics.median(theirs for theirs, _ in pairs):14.1f} "
            f"{statistics.median(mine for _, mine in pairs):14.1f}  "
            f"{statistics.median(ratios):.3f} ({low:.3f} to {high:.3f}, n={len(ratios)})",
            flush=True,
        )
    reached = all(statistics.median(b / a for a, b in pairs) >= AIM for pairs in samples.values())
    print(f"aim at least {AIM}: {'reached' if reached else 'MISSED'}")
    if options.json:
        result = {"machine": machine(), "quick": options.quick, "pairs": samples, "reached": reached}
        options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
