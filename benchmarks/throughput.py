"""How many more answers a second the same cloud gives when devices finish them: split against in cloud.

The service's own scheduler over llama.cpp with 107 M random parameters, saturated: as many requests run as there are
places, and as many wait. Devices are *emulated* as load: each takes its grant and goes; finishing the answer costs this
machine nothing. The grant is what the SDK would ask for with a phone of 1,400 and a cloud of 7,500 prompt tokens/s,
50 ms a token and a round trip of 47 ms. Beside each ratio is its bound (P(L) + N·c) / (P(L) + k·c): P(L) is the time of
a prompt while the places fill up and c that of a token in a full batch, both measured with a bare loop on the same
engine in the same run.
Aims: at least 85% of the bound in every cell, and 10 times the answers at 128 × 1,024.
Run: `python -m benchmarks.throughput [--quick] [--json FILE] [--prompts N …] [--rounds N]`.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.big_engine import big_engine, decode, prefill, random_prompt
from benchmarks.driving import PASS_TOKENS, Driver, Request
from demos.side_by_side.hardware import machine
from model_runtime.core import Chunk, Logits
from speed_controller.split import grant_needed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from model_runtime.core import Engine

PLACES = 8
PROMPTS, ANSWERS = (128, 512, 2048), (64, 256, 1024)
LONGEST = max(PROMPTS) + max(ANSWERS)
DEVICE_PREFILL, CLOUD_PREFILL, ROUND_TRIP, PACE, DEVICE_TPOT = 1_400.0, 7_500.0, 0.047, 0.05, 0.045
BOUND_AIM, RATIO_AIM = 0.85, (128, 1024, 10.0)


@dataclass(frozen=True, slots=True)
class Cell:
    """One prompt length with one answer length; rates are answers per second, one for each round."""

    prompt: int
    answer: int
    grant: int
    in_cloud: list[float]
    split: list[float]
    #: Seconds of a prompt and of a token, by the bare loop.
    prompt_s: float
    token_s: float

    @property
    def ratios(self) -> list[float]:
        return [ours / theirs for theirs, ours in zip(self.in_cloud, self.split, strict=True)]

    @property
    def ratio(self) -> float:
        return statistics.median(self.ratios)

    @property
    def bound(self) -> float:
        return (self.prompt_s + self.answer * self.token_s) / (self.prompt_s + self.grant * self.token_s)


def grant_for(prompt: int) -> int:
    """As the SDK asks: what is needed, a tenth, and two tokens more."""
    needed = grant_needed(
        ready_without=prompt / DEVICE_PREFILL,
        cloud_ttft=ROUND_TRIP + prompt / CLOUD_PREFILL,
        pace=PACE,
        prefill_rate=DEVICE_PREFILL,
        device_tpot=DEVICE_TPOT,
    )
    return math.ceil(1.1 * needed) + 2


def prompt_seconds(engine: Engine, prompt: int, dice: random.Random) -> float:
    """The bare loop's time for a prompt, on average while the places fill up: it costs more the more stands beside it,
    as llama.cpp looks at every cell of the cache that its sequences share."""
    prompts = [random_prompt(prompt, dice) for _ in range(PLACES)]
    started = time.perf_counter()
    sequences = prefill(engine, prompts, PASS_TOKENS)
    taken = time.perf_counter() - started
    for sequence in sequences:
        engine.close(sequence)
    return taken / PLACES


def token_seconds(engine: Engine, contexts: Sequence[int], passes: int, dice: random.Random) -> dict[int, float]:
    """The bare loop's time for a token in a full batch, by the tokens in context."""
    found = {}
    sequences: list[int] = []
    held = 0
    for context in sorted(set(contexts)):
        more = [random_prompt(context - held, dice) for _ in range(PLACES)]
        if not sequences:
            sequences = prefill(engine, more, PASS_TOKENS)
        else:
            _extend(engine, sequences, more)
        started = time.perf_counter()
        decode(engine, sequences, passes)
        found[context] = (time.perf_counter() - started) / passes / PLACES
        held = context
        for sequence in sequences:
            engine.truncate(sequence, held)
    for sequence in sequences:
        engine.close(sequence)
    return found


def _extend(engine: Engine, sequences: Sequence[int], parts: Sequence[Sequence[int]]) -> None:
    for sequence, part in zip(sequences, parts, strict=True):
        for start in range(0, len(part), PASS_TOKENS):
            engine.forward([Chunk(sequence, part[start : start + PASS_TOKENS], Logits.NONE)])


def answers_per_second(driver: Driver, prompt: int, tokens: int, count: int, dice: random.Random) -> float:
    return count / driver.run(Request(random_prompt(prompt, dice), tokens) for _ in range(count))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the smallest four cells, one round")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure there")
    parser.add_argument("--prompts", type=int, nargs="+", choices=PROMPTS, help="prompt lengths; all of them")
    parser.add_argument("--rounds", type=int, default=2, help="in turns (default %(default)s)")
    options = parser.parse_args()
    prompts, answers = (PROMPTS[:2], ANSWERS[:2]) if options.quick else (PROMPTS, ANSWERS)
    prompts = tuple(options.prompts or prompts)
    rounds = 1 if options.quick else options.rounds
    dice = random.Random(1)
    kv_tokens = PLACES * LONGEST
    bare = big_engine(PLACES, kv_tokens)
    prompt_s = {prompt: prompt_seconds(bare, prompt, dice) for prompt in prompts}
    # A token costs more the more stands before it: taken at the middle of the answer in cloud.
    contexts = [prompt + answer // 2 for prompt in prompts for answer in answers]
    token_s = token_seconds(bare, contexts, 5 if options.quick else 20, dice)
    bare.shutdown()
    driver = Driver(big_engine(PLACES, kv_tokens), PLACES)
    answers_per_second(driver, 128, 8, PLACES, dice)  # a warm-up
    print(f"{PLACES} places, devices emulated; answers per second")
    print("prompt × answer  grant  in cloud    split   ratio (lowest to highest)   bound  of the bound")
    cells = []
    for prompt in prompts:
        # Never above the shortest answer here, so what the split takes does not depend on the answer's length.
        grant = grant_for(prompt)
        theirs: dict[int, list[float]] = {answer: [] for answer in answers}
        ours = []
        for _ in range(rounds):
            ours.append(answers_per_second(driver, prompt, grant, 2 * PLACES, dice))
            for answer in answers:
                theirs[answer].append(answers_per_second(driver, prompt, answer, PLACES, dice))
        for answer in answers:
            cell = Cell(prompt, answer, grant, theirs[answer], ours, prompt_s[prompt], token_s[prompt + answer // 2])
            cells.append(cell)
            low, high = min(cell.ratios), max(cell.ratios)
            print(
                f"{prompt:6} × {answer:6} {grant:6} {statistics.median(cell.in_cloud):9.3f} "
                f"{statistics.median(ours):8.3f} {cell.ratio:7.2f} ({low:.2f} to {high:.2f}) {cell.bound:7.2f} "
                f"{cell.ratio / cell.bound:9.0%}",
                flush=True,
            )
    driver.close()
    reached = _verdict(cells)
    if options.json:
        found = [{**asdict(cell), "ratio": cell.ratio, "bound": cell.bound} for cell in cells]
        result = {"machine": machine(), "quick": options.quick, "reached": reached, "cells": found}
        options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 0 if reached else 1


def _verdict(cells: Sequence[Cell]) -> bool:
    reached = True
    for cell in cells:
        if cell.ratio < BOUND_AIM * cell.bound:
            print(f"MISSED: {cell.prompt} × {cell.answer} is below {BOUND_AIM:.0%} of its bound")
            reached = False
        if (cell.prompt, cell.answer) == RATIO_AIM[:2] and cell.ratio < RATIO_AIM[2]:
            print(f"MISSED: {cell.prompt} × {cell.answer} is below {RATIO_AIM[2]:.0f} times")
            reached = False
    return reached


if __name__ == "__main__":
    sys.exit(main())
