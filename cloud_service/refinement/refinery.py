"""From what was seen of a prompt to the spans that are kept: score, select, judge; in a thread of its own."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol, TypeVar, runtime_checkable

from cloud_service.refinement.answer_attention import WEIGHT
from cloud_service.refinement.attention import Head
from cloud_service.refinement.contract import NO_NEEDS, Evidence, Needs, Prompt, Scorer, Span
from cloud_service.refinement.floors import NO_FLOORS, Floors
from cloud_service.refinement.guard import FITTED_AT, Figures, Guard, Verdict, figures_of
from cloud_service.refinement.selection import select
from model_runtime.core import FloatArray
from model_runtime.prompt_map import PromptMap
from wire_protocol.messages import Guard as Word

logger = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Wish:
    """What a client asked to have refined. `prompt.protected` are its protected spans, in tokens."""

    prompt: Prompt
    #: At most so much of it is kept, or what is protected where that is more.
    keep_ratio: float
    #: Where the client counts in characters of its messages; None where it counts in the prompt's tokens.
    map: PromptMap | None = None


@dataclass(frozen=True, slots=True)
class Refined:
    """What came of one stage."""

    #: In the client's unit; None for the whole prompt.
    keep: tuple[Span, ...] | None
    guard: Word
    detail: str
    scorer: str
    cost_s: float
    #: The share of the prompt's tokens that is kept.
    kept_share: float
    #: For the next stage; None where the scorer failed.
    scores: FloatArray | None
    #: `keep` in the prompt's tokens; None for the whole prompt.
    spans: tuple[Span, ...] | None = None
    #: The least share of the best line's importance at which lines were kept.
    floor: float = 0.0


@runtime_checkable
class Watching(Protocol):
    """A scorer that can say what heads regard, for a guard that asks for it."""

    def regards(self, prompt: Prompt, evidence: Evidence, heads: Sequence[Head]) -> tuple[float, ...]:
        """Of the prompt that was scored last."""
        ...


class Refinery:
    """The scorers of one service, each a stage, and the thread that they work in. Without scorers, every prompt is
    kept whole. Thread-safe."""

    def __init__(
        self,
        stages: Sequence[Scorer] = (),
        guard: Guard | None = None,
        *,
        floors: Floors = NO_FLOORS,
        why_not: str = "the service does not score prompts",
        release: Callable[[], None] | None = None,
    ) -> None:
        """`stages`: a first scorer, and one that looks at the answer where there is a second. `guard`: None lets every
        selection stand. `floors`: of the first scorer's importance. `why_not`: for clients, where there is no scorer.
        `release` is called in the end, for a scorer that owns an engine."""
        if len(stages) > 2 or (len(stages) == 2 and not stages[1].needs.answer_rows):
            raise ValueError("at most two stages, of which the second looks at the answer")
        watched = [*(guard.heads if guard else ()), *floors.heads]
        if watched and not (stages and isinstance(stages[0], Watching)):
            raise ValueError("this guard asks what heads regard, which the first scorer cannot say")
        if stages and stages[0].needs.answer_rows:
            raise ValueError("the first stage cannot wait for the answer")
        self.stages = tuple(stages)
        self._guard = guard
        self._floors = floors
        self._why_not = why_not
        self._release = release
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="refine")

    @property
    def needs(self) -> Needs:
        """Of all stages together. Layers are the same for all: one tap serves them."""
        if not self.stages:
            return NO_NEEDS
        first = self.stages[0].needs
        if len(self.stages) == 1:
            return first
        second = self.stages[1].needs
        return dataclasses.replace(first, layers=first.layers or second.layers, answer_rows=second.answer_rows)

    def run(self, work: Callable[..., T], *arguments: object) -> Future[T]:
        """Do something in the thread, after all that was asked for before."""
        try:
            return self._thread.submit(work, *arguments)
        except RuntimeError:  # closed: whoever asks now is on the way out, too
            never: Future[T] = Future()
            never.cancel()
            return never

    def refine(self, wish: Wish, stage: int, evidence: Evidence, before: Refined | None = None) -> Refined:
        """What stage `stage` (0 is the first) makes of the evidence; `before` is what the first made of its own. Never
        raises: a scorer that does, or returns what it must not, costs nobody more than a prompt that is kept whole."""
        started = time.perf_counter()
        scorer, floor = self.stages[stage], 0.0
        try:
            scores = scorer.score(wish.prompt, evidence)
            kept = select(wish.prompt, scores, wish.keep_ratio)
            verdict, floor = self._judge(wish, stage, scores, kept, evidence, before)
            if floor > 0:
                kept = select(wish.prompt, scores, wish.keep_ratio, floor)
            keep: tuple[Span, ...] | None = kept if wish.map is None else wish.map.characters_of(kept)
        except Exception:
            logger.exception("scoring failed", extra={"scorer": scorer.name})
            scores, kept, keep = None, (), None
            verdict = Verdict("failed", f"{scorer.name} failed; see the service's log")
        spans: tuple[Span, ...] | None = kept
        share = sum(end - start for start, end in kept) / len(wish.prompt.tokens)
        if verdict.word != "passed":
            keep, spans, share = None, None, 1.0
        cost = time.perf_counter() - started
        return Refined(keep, verdict.word, verdict.detail, scorer.name, cost, share, scores, spans, floor)

    def _judge(
        self,
        wish: Wish,
        stage: int,
        scores: FloatArray,
        kept: Sequence[Span],
        evidence: Evidence,
        before: Refined | None,
    ) -> tuple[Verdict, float]:
        """Of `kept`, which fills the keep ratio: whether something may be left out, and below which floor more is."""
        if sum(end - start for start, end in kept) >= len(wish.prompt.tokens):
            return Verdict("short", "what is protected and the keep ratio leave nothing out"), 0.0
        if not kept:
            return Verdict("short", "no line is as short as the keep ratio asks for"), 0.0
        guard, floors = self._guard, self._floors
        if stage > 0:
            # It sharpens what the guard has passed, and adds to the best lines most: the others are then further below
            # them, and no less needed.
            return Verdict("passed"), floors.several if before is None else before.floor / (1 + WEIGHT)
        figures = None
        if guard is not None or floors.boundary is not None:
            figures = self._figures(wish, scores, kept)
        verdict = Verdict("passed")
        if guard is not None:
            verdict = guard.judge(self._watched(figures, wish.prompt, evidence, guard.heads))
        if verdict.word != "passed":
            return verdict, 0.0
        return verdict, floors.choose(self._watched(figures, wish.prompt, evidence, floors.heads))

    def _figures(self, wish: Wish, scores: FloatArray, kept: Sequence[Span]) -> Figures | None:
        """What the guard and the floors look at, but for what heads regard; `kept` fills the keep ratio."""
        fitted = self._floors.boundary is not None or (self._guard is not None and self._guard.boundary is not None)
        if fitted and wish.keep_ratio != FITTED_AT:
            kept = select(wish.prompt, scores, FITTED_AT)
        return figures_of(wish.prompt, scores, kept)

    def _watched(
        self, figures: Figures | None, prompt: Prompt, evidence: Evidence, heads: Sequence[Head]
    ) -> Figures | None:
        """With what `heads` regard."""
        scorer = self.stages[0]
        if figures is None or not heads or not isinstance(scorer, Watching):
            return figures
        return dataclasses.replace(figures, regards=scorer.regards(prompt, evidence, heads))

    def whole(self, why: str = "") -> Refined:
        """The answer where nothing can be scored."""
        name = self.stages[0].name if self.stages else ""
        return Refined(None, "unavailable", why or self._why_not, name, 0.0, 1.0, None)

    def close(self) -> None:
        """Let go of the thread, after what runs in it now, and of what the scorers own."""
        if self._release is not None:
            self.run(self._release)
        self._thread.shutdown(wait=False)
