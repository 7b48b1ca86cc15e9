"""What a conversation costs the device, and what prompts beyond its context come to.

turns   TTFT on the device of a conversation's second turn against its first one's, at 2,000 tokens: kept in memory, and
        restored from disk; and whether reuse changes any answer. Aim: at most 10%.
long    held-out lookups in prompts of three times the device's context (which is made small for it), through a real
        cloud process: right to the letter, with the cloud's model alone beside it. Aim: at least 90%.
memory  the growth of 200 conversations opened and closed in one process; the peak at 4,000 prompt tokens. Aims: flat;
        at most weights + KV cache + 100 MB.

Nothing is emulated: bundled models, this machine, loopback. Run: `python -m benchmarks.conversations [--only turns long
memory] [--quick] [--json FILE]`. How we measure: benchmarks/METHODOLOGY.md.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from benchmarks.big_model import big_gguf, big_model
from benchmarks.conversing.figures import Figure
from benchmarks.conversing.long_prompts import long_prompts
from benchmarks.conversing.memory import many, peak
from benchmarks.conversing.second_turn import second_turn
from demos.side_by_side.hardware import machine

MODELS = Path(__file__).parent.parent / "demos" / "models"
CACHE = Path(__file__).parent.parent / "out" / "benchmarks"
PARTS = ("turns", "long", "memory")


def measure(part: str, *, quick: bool, context: int) -> Iterator[Figure]:
    device, cloud = MODELS / "device" / "model.onnx", MODELS / "cloud" / "model.onnx"
    CACHE.mkdir(parents=True, exist_ok=True)
    match part:
        case "turns":
            yield from asyncio.run(second_turn(device, 2_000, 3 if quick else 20))
        case "long":
            yield from asyncio.run(long_prompts(device, cloud, context, 6 if quick else 150, CACHE / "cloud.log"))
        case _:
            yield many(device, 60 if quick else 200)
            yield peak(device, 4_000)
            if not quick:
                yield peak(big_model(MODELS / "device", CACHE), 4_000)
                yield peak(big_gguf(MODELS / "device", CACHE), 4_000)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, metavar="PART", help=", ".join(PARTS))
    parser.add_argument(
        "--context", type=int, default=1_024, help="the device's context in `long` (%(default)s tokens)"
    )
    parser.add_argument("--quick", action="store_true", help="fewer samples, without the model of 105 M parameters")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure there")
    options = parser.parse_args()
    found: dict[str, list[Figure]] = {}
    for part in options.only:
        print(part)
        found[part] = []
        for figure in measure(part, quick=options.quick, context=options.context):
            found[part].append(figure)
            print(f"  {figure.line()}", flush=True)
    if options.json:
        parts = {part: [asdict(figure) for figure in figures] for part, figures in found.items()}
        result = {"machine": machine(), "quick": options.quick, **parts}
        options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 0 if all(figure.reached for figures in found.values() for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
