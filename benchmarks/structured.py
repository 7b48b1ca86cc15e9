"""Whether constrained answers are valid wherever the cloud hands over, and what a constraint costs.

seams  the bundled models, which never saw JSON, over a real `pd-cloud` process: at every grant from 0 to the answer's
       length, is it whole and of its schema? With the device's model of the same tokenizer (ids travel) and with one of
       another (text travels). The device's prefill is emulated slow enough for the cloud to give its whole grant.
       Aim: all of them.
mask   ms to work out which tokens may come next, and to leave out the others, at each token of a JSON answer, by
       vocabulary; and what a vocabulary and a schema take once.
decode device's ms for a token, constrained (to any text, so that both say the same) against free, ONLY_ON_DEVICE,
       pairs of neighbours within one run. A worst case: the bundled model needs little for a token of its own.

Run: `python -m benchmarks.structured [--quick] [--json FILE]`; needs `pd-device[structured]`.
How we measure: benchmarks/METHODOLOGY.md.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import jsonschema

from demos.side_by_side.cloud_process import CloudProcess, CloudSettings
from demos.side_by_side.hardware import machine
from device_sdk import Answer, HybridClient, JsonSchema, Mode, PaceSettings, Regex, Source, SplitSettings
from model_runtime.constraint import compile_constraint
from model_runtime.core import Tokenizer
from model_runtime.emulated import EmulatedEngine
from model_runtime.loading import load_engine
from model_runtime.profiles import HardwareProfile
from model_runtime.sampling import SamplingParams
from model_runtime.testing import ScriptedTokenizer
from model_runtime.tokenizers import load_tokenizer

MODELS = Path(__file__).parent.parent / "demos" / "models"
CACHE = Path(__file__).parent.parent / "out" / "benchmarks"
UNPACED = PaceSettings(mode="off")
LOG = "Dock log 12\n412 Mira Nagy locked the north gate.\n413 Ivo Lund painted the crane.\n\nWho painted the crane?"
SCHEMA = {
    "type": "object",
    "properties": {
        "who": {"type": "string", "maxLength": 10},
        "entry": {"type": "integer", "minimum": 0, "maximum": 999},
        "what": {"enum": ["locked", "painted", "moved"]},
        "places": {"type": "array", "items": {"enum": ["gate", "crane", "dock"]}, "maxItems": 1},
    },
    "required": ["who", "entry", "what", "places"],
    "additionalProperties": False,
}
#: Emulated: slower than any phone, so that the seam falls where it is asked for.
SLOW = HardwareProfile(
    name="slow",
    title="A device made up for this benchmark",
    source="nowhere",
    prefill_tokens_per_s=((1, 40.0),),
    decode_ms=((1, 1.0),),
)


async def seams(device: str, step: int) -> dict[str, Any]:
    """One line of the result: how many answers there were, and how many were whole and valid."""
    CACHE.mkdir(parents=True, exist_ok=True)
    engine = await asyncio.to_thread(load_engine, MODELS / device / "model.onnx", threads=1)
    asked = {"response_format": JsonSchema(SCHEMA), "max_tokens": 200, "refine": False}
    valid, mixed, answers = 0, 0, 0
    async with CloudProcess(CloudSettings(str(MODELS / "cloud" / "model.onnx"), CACHE / "structured.log")) as cloud:
        url = f"ws://127.0.0.1:{cloud.port}"
        async with HybridClient(device=EmulatedEngine(engine, SLOW), cloud=url) as client:
            whole = await client.generate(LOG, **asked, mode=Mode.ONLY_IN_CLOUD, split=SplitSettings(pace=UNPACED))
            length = len(whole.token_ids) or whole.report.cloud_tokens
            for grant in range(0, length + 2, step):
                split = SplitSettings(grant=grant, max_grant=grant, pace=UNPACED)
                # A prompt of its own each, or what the device kept of the last one would make it ready at once.
                answer = await client.generate(f"Log {grant}\n{LOG}", **asked, split=split)
                answers += 1
                valid += _valid(answer)
                mixed += len({span.source for span in answer.report.spans} & set(Source)) == 2
    engine.shutdown()
    travels = "ids" if device == "device" else "text"
    return {"device": device, "travels": travels, "answers": answers, "valid": valid, "of both sides": mixed}


def _valid(answer: Answer) -> bool:
    try:
        jsonschema.validate(json.loads(answer.text), SCHEMA)
    except (ValueError, jsonschema.ValidationError):
        return False
    return answer.report.finish_reason == "eos"


def mask(name: str, tokenizer: Tokenizer, rounds: int) -> dict[str, Any]:
    text = '{"who": "Ivo Lund", "entry": 413, "what": "painted", "places": ["crane"]}'
    started = time.perf_counter()
    compile_constraint(Regex("a"), tokenizer)
    vocabulary = time.perf_counter() - started
    started = time.perf_counter()
    compiled = compile_constraint(JsonSchema(SCHEMA), tokenizer)
    schema = time.perf_counter() - started
    tokens, each = tokenizer.encode(text), []
    for _ in range(rounds):
        matcher = compiled.start()
        for place in range(len(tokens) + 1):
            started = time.perf_counter()
            matcher.allowed(tokens[:place])
            each.append(1000 * (time.perf_counter() - started))
    return {
        "vocabulary": f"{name}, {tokenizer.vocabulary_size:,} tokens",
        "ms for a token": _spread(each),
        "ms for the vocabulary, once": 1000 * vocabulary,
        "ms for the schema, once": 1000 * schema,
    }


async def decode(rounds: int, tokens: int) -> dict[str, Any]:
    engine = await asyncio.to_thread(load_engine, MODELS / "device" / "model.onnx", threads=1)
    free, held = [], []
    anything = Regex(r"(.|\n)*")
    async with HybridClient(device=engine, mode=Mode.ONLY_ON_DEVICE, split=SplitSettings(pace=UNPACED)) as client:
        for number in range(rounds + 1):
            pair = []
            for constraint in (None, anything):
                sampling = SamplingParams(temperature=3.0, seed=number)
                answer = await client.generate(
                    f"{number}: {LOG}", max_tokens=tokens, sampling=sampling, response_format=constraint
                )
                arrivals = answer.report.timeline.arrivals
                pair.append(1000 * (arrivals[-1] - arrivals[0]) / max(len(arrivals) - 1, 1))
            if number:  # the first pair is a warm-up
                free.append(pair[0])
                held.append(pair[1])
    engine.shutdown()
    ratio = [b / a for a, b in zip(free, held, strict=True)]
    return {"free, ms": _spread(free), "constrained, ms": _spread(held), "constrained / free": _spread(ratio)}


def _spread(values: list[float]) -> dict[str, float]:
    ordered = sorted(values)
    tenth = len(ordered) // 10
    return {"median": statistics.median(ordered), "p10": ordered[tenth], "p90": ordered[-1 - tenth], "n": len(ordered)}


def large_vocabulary() -> Tokenizer:
    """As many tokens as Qwen's: syllables and words of them."""
    syllables = ["".join(pair) for pair in itertools.product("bcdfghklmnprstvz", "aeiou")]
    words = [f" {a}{b}{c}" for a, b, c in itertools.product(syllables, syllables, syllables[:24])]
    return ScriptedTokenizer(words=words[:151_000])


def _show(title: str, row: dict[str, Any]) -> None:
    print(title)
    for name, value in row.items():
        text = f"{value:.1f}" if isinstance(value, float) else str(value)
        if isinstance(value, dict):
            text = "{median:.3f} ({p10:.3f} to {p90:.3f}, 10th to 90th percentile, n={n})".format(**value)
        print(f"  {name}: {text}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="every fifth grant, few rounds: under a minute")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure there")
    options = parser.parse_args()
    step, rounds = (5, 3) if options.quick else (1, 20)
    found = {
        "seams": [asyncio.run(seams(device, step)) for device in ("device", "device-alt")],
        "mask": [
            mask("bundled", load_tokenizer(MODELS / "device"), rounds),
            mask("made up", large_vocabulary(), rounds),
        ],
        "decode": [asyncio.run(decode(rounds, 100))],
    }
    for title, rows in found.items():
        for row in rows:
            _show(title, row)
    reached = all(row["valid"] == row["answers"] for row in found["seams"])
    print(f"every answer valid: {'reached' if reached else 'MISSED'}")
    if options.json:
        result = {"machine": machine(), "quick": options.quick, "reached": reached, **found}
        options.json.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
