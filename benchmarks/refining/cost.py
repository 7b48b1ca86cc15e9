"""What watching costs: a prefill with the attention tap beside one without, same engine, same flags, in turns."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.big_model import big_gguf, big_model
from benchmarks.refining.cases import logbooks
from cloud_service.refinement.contract import NO_NEEDS, Prompt
from cloud_service.refinement.factory import build_refinery
from cloud_service.refinement.refinery import Wish
from cloud_service.scheduler.evidence import EvidenceCollector
from model_runtime.core import Chunk, Logits
from model_runtime.loading import load_engine

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cloud_service.refinement.contract import Evidence, Needs
    from model_runtime.core import Engine, Tokenizer

#: Prefill with the tap ÷ without, at most.
AIM = 1.10
PROMPT_TOKENS = 2_000
KEEP_RATIO = 0.25
#: As the service cuts prompts by default.
_PASS_TOKENS = 512


@dataclass(frozen=True, slots=True)
class Cost:
    model: str
    engine: str
    #: Seconds of each pair.
    without: list[float]
    with_tap: list[float]
    #: Of each pair.
    ratios: list[float]
    #: Milliseconds that scoring and selecting take afterwards, in a thread beside the engine's.
    scoring_ms: list[float]

    @property
    def median(self) -> float:
        return statistics.median(self.ratios)

    @property
    def reached(self) -> bool:
        return self.median <= AIM

    def line(self) -> str:
        ordered = sorted(self.ratios)
        low, high = ordered[len(ordered) // 10], ordered[-1 - len(ordered) // 10]
        return (
            f"{self.model:<14} {self.engine:<10} {1000 * statistics.median(self.without):7.0f} ms without, "
            f"ratio {self.median:.3f} ({low:.3f} to {high:.3f}, n={len(ordered)}), "
            f"then {statistics.median(self.scoring_ms):.0f} ms to score; "
            f"aim ≤ {AIM}: {'reached' if self.reached else 'MISSED'}"
        )


def measure(models: Path, cache: Path, pairs: int, threads: int) -> Iterator[Cost]:
    """The bundled cloud model and more than 100 M random parameters, each on both engines."""
    cloud = models / "cloud"
    yield _measure(cloud / "model.onnx", pairs, threads)
    yield _measure(cloud / "model.gguf", pairs, threads)
    yield _measure(big_model(models / "device", cache), pairs, threads)
    yield _measure(big_gguf(models / "device", cache), pairs, threads)


def _measure(model: Path, pairs: int, threads: int) -> Cost:
    with load_engine(model, threads=threads, max_sequences=1, tap_layers="all") as engine:
        refinery = build_refinery("attention", str(model), engine.info)
        without: list[float] = []
        with_tap: list[float] = []
        scoring = []
        for number, prompt in enumerate(_prompts(engine.tokenizer, pairs + 1)):
            # Another document each time, and the sides take turns in going first.
            order = (NO_NEEDS, refinery.needs) if number % 2 else (refinery.needs, NO_NEEDS)
            for needs in order:
                took, evidence = _prefill(engine, prompt, needs)
                (without if needs == NO_NEEDS else with_tap).append(took)
                if evidence is not None:
                    scoring.append(1000 * refinery.refine(Wish(prompt, KEEP_RATIO), 0, evidence).cost_s)
        refinery.close()
        # The first pair is a warm-up.
        ratios = [tapped / plain for tapped, plain in zip(with_tap[1:], without[1:], strict=True)]
        return Cost(model.parent.name, engine.info.engine, without[1:], with_tap[1:], ratios, scoring[1:])


def _prompts(tokenizer: Tokenizer, count: int) -> Iterator[Prompt]:
    """The last tokens of longer ones, so that all are equally long."""
    for case in logbooks(tokenizer, "lookup", PROMPT_TOKENS + 500, count, seed=11):
        tokens, pieces = case.prompt.tokens[-PROMPT_TOKENS:], case.prompt.pieces[-PROMPT_TOKENS:]
        start, end = (edge - len(case.prompt.tokens) + len(tokens) for edge in case.prompt.protected[-1])
        yield Prompt(tokens, pieces, ((start, end),))


def _prefill(engine: Engine, prompt: Prompt, needs: Needs) -> tuple[float, Evidence | None]:
    """Seconds, and what was seen where something was wanted."""
    length, evidence = len(prompt.tokens), None
    collector = EvidenceCollector(needs, prompt.tokens, length)
    sequence = engine.open()
    started = time.perf_counter()
    for start in range(0, length, _PASS_TOKENS):
        tokens = prompt.tokens[start : start + _PASS_TOKENS]
        logits = Logits.LAST if start + len(tokens) == length else Logits.NONE
        chunk = collector.equip(Chunk(sequence, tokens, logits), start)
        [result] = engine.forward([chunk])
        seen = collector.take(chunk, start, result)
        evidence = evidence if seen is None else seen.evidence
    took = time.perf_counter() - started
    engine.close(sequence)
    return took, evidence
