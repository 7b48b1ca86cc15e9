"""What refinement does to answers: exact match on what each scorer keeps, evidence recall, the guard."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from cloud_service.refinement.baselines import BM25, HeadTail, RandomUnits, SelfInformation
from cloud_service.refinement.contract import Evidence
from cloud_service.refinement.refinery import Wish
from cloud_service.refinement.selection import select
from cloud_service.scheduler.evidence import EvidenceCollector
from model_runtime.core import Chunk, Logits

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.refining.cases import Case
    from cloud_service.refinement.contract import Needs, Prompt, Span
    from cloud_service.refinement.refinery import Refined, Refinery
    from model_runtime.core import Engine, FloatArray

#: Shares of the prompt to keep.
RATIOS = (0.1, 0.25, 0.5)
#: What the aims are about: what the service keeps by its first stage, which the device has by the time it matters most;
#: with the floors of its calibration, and the guard.
OURS = "served"
#: Knows where the answer stands: the most that a selection of so many whole lines can do.
ORACLE = "oracle"

_CHUNK = 512
_BASELINES = (BM25(), SelfInformation(), HeadTail(), RandomUnits())


@dataclass(frozen=True, slots=True)
class Kept:
    """One case under one method and ratio."""

    #: `Case.number`.
    case: int
    source: str
    kind: str
    length: int
    method: str
    ratio: float
    #: Of the prompt's tokens, what was kept; protected spans are among them.
    kept: float
    #: Of the evidence's lines, those kept whole.
    recall: float
    #: Whether the device's model answers exactly so, given what was kept.
    right: bool


@dataclass(frozen=True, slots=True)
class Judged:
    """The guard on one case at one ratio."""

    source: str
    kind: str
    length: int
    ratio: float
    whole: bool
    word: str


@dataclass(frozen=True, slots=True)
class Scored:
    """One case's importances by method, and what the service makes of the first stage's, by ratio."""

    scores: dict[str, FloatArray]
    served: dict[float, Refined]


class Cloud:
    """The service's engine and scorers, without the service: the same passes ask for the same evidence."""

    def __init__(self, engine: Engine, refinery: Refinery) -> None:
        self._engine = engine
        self._refinery = refinery

    def score(self, case: Case) -> Scored:
        prompt = case.prompt
        first, *later = self._refinery.stages
        evidence, answer = look(self._engine, prompt, dataclasses.replace(self._refinery.needs, logprobs=True))
        scores = {first.name: first.score(prompt, evidence)}
        for stage in later:
            seen = dataclasses.replace(answer, earlier=scores[first.name])
            scores[stage.name] = stage.score(prompt, seen)
        scores |= {baseline.name: baseline.score(prompt, evidence) for baseline in _BASELINES}
        scores[ORACLE] = np.zeros(len(prompt.tokens), np.float32)
        for start, stop in case.evidence:
            scores[ORACLE][start:stop] = 1.0
        return Scored(scores, {ratio: self._refinery.refine(Wish(prompt, ratio), 0, evidence) for ratio in RATIOS})


def judged(case: Case, scored: Scored) -> Iterator[Judged]:
    for ratio, refined in scored.served.items():
        yield Judged(case.source, case.kind, case.length, ratio, refined.guard != "passed", refined.guard)


def look(engine: Engine, prompt: Prompt, needs: Needs) -> tuple[Evidence, Evidence]:
    """What the prompt's passes and the first answer tokens' show; nothing of the answer where nothing is needed."""
    seen: dict[str, Evidence] = {}
    position, length, token = 0, len(prompt.tokens), 0
    collector = EvidenceCollector(needs, prompt.tokens, length)
    sequence = engine.open()
    while position < length + needs.answer_rows:
        tokens = prompt.tokens[position : position + _CHUNK] if position < length else (token,)
        chunk = collector.equip(Chunk(sequence, tokens), position)
        [result] = engine.forward([chunk])
        found = collector.take(chunk, position, result)
        if found is not None:
            seen[found.stage] = found.evidence
        position += len(tokens)
        token = int(result.logits[-1].argmax())
    engine.close(sequence)
    return seen["prompt"], seen.get("answer", Evidence())


class Device:
    """The device's model, asked one question at a time."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def is_right(self, prompt: Sequence[int], answer: Sequence[int]) -> bool:
        """Whether greedy decoding gives this answer and ends there: every token of it is the likeliest after those
        before. One pass tells, since another answer differs at its first wrong token whatever follows."""
        sequence = self._engine.open()
        try:
            edges = [*range(0, len(prompt), _CHUNK), len(prompt)]
            for start, stop in pairwise(edges):
                [result] = self._engine.forward([Chunk(sequence, prompt[start:stop])])
            said = [int(result.logits[-1].argmax())]
            [result] = self._engine.forward([Chunk(sequence, answer, Logits.ALL)])
            said += result.logits.argmax(axis=-1).tolist()
        finally:
            self._engine.close(sequence)
        return said[:-1] == list(answer) and said[-1] in self._engine.tokenizer.eos_ids


def kept_by(case: Case, scored: Scored, device: Device, ratios: Sequence[float] = RATIOS) -> Iterator[Kept]:
    """Every method at every ratio, what the service keeps, and the full prompt at ratio 1."""
    whole = ((0, len(case.prompt.tokens)),)
    yield _kept(case, "full", 1.0, whole, device)
    for ratio in ratios:
        if ratio in scored.served:
            yield _kept(case, OURS, ratio, scored.served[ratio].spans or whole, device)
    for method, scores in scored.scores.items():
        for ratio in ratios:
            yield _kept(case, method, ratio, select(case.prompt, scores, ratio), device)


def _kept(case: Case, method: str, ratio: float, spans: Sequence[Span], device: Device) -> Kept:
    tokens = [token for start, stop in spans for token in case.prompt.tokens[start:stop]]
    return Kept(
        case.number,
        case.source,
        case.kind,
        case.length,
        method,
        ratio,
        len(tokens) / len(case.prompt.tokens),
        recall(case, text_of(case.prompt, spans)),
        device.is_right(tokens, case.answer),
    )


def recall(case: Case, kept: str) -> float:
    """Of the lines that the answer rests on, the share that `kept` holds whole."""
    return sum(line in kept for line in case.lines) / len(case.lines)


def text_of(prompt: Prompt, spans: Sequence[Span]) -> str:
    return b"".join(piece for start, stop in spans for piece in prompt.pieces[start:stop]).decode(errors="replace")
