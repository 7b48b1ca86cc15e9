"""What becomes of one `refine`: evidence in as the engine shows it, `refinement` messages out as soon as they exist.

Tokens and refinements do not wait for each other: a first token held back for its refinement costs TTFT more than the
device's few prompt tokens of that time are worth (docs/log.md).
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Callable
from concurrent.futures import Future

from cloud_service.metrics import Metrics
from cloud_service.refinement.contract import Evidence, Span
from cloud_service.refinement.refinery import Refined, Refinery, Wish
from cloud_service.scheduler.jobs import Seen
from cloud_service.sessions.requests import Extent
from wire_protocol.messages import Refinement

logger = logging.getLogger(__name__)

#: How long the end of a generation waits for a refinement under way, in seconds: nothing can be said after it.
PATIENCE = 5.0


class Refining:
    """Belongs to one event loop."""

    def __init__(
        self,
        name: str,
        refinery: Refinery,
        extent: Extent,
        make_wish: Callable[[], Wish | None],
        *,
        grant: int,
        metrics: Metrics,
        send: Callable[[Refinement], None],
        reread: Callable[[tuple[Span, ...] | None], None] | None = None,
    ) -> None:
        """`make_wish` runs in the refinery's thread, during the prefill; None where the prompt's parts cannot be found
        in what the engine reads. `reread` is told, once, from which of the prompt's tokens to answer (None: all);
        without it, the answer does not wait for that."""
        self._name = name
        self._refinery = refinery
        self._extent = extent
        self._metrics = metrics
        self._send = send
        self._reread = reread
        self._under_way: dict[int, asyncio.Future[Refined | None]] = {}
        self._first: Future[Refined | None] | None = None
        self._open = True
        self._then: Callable[[], None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        stages = refinery.stages
        #: Whether the answer can get long enough for the second stage.
        self._second = len(stages) > 1 and reread is None and grant > stages[1].needs.answer_rows
        if not stages:
            self._tell(0, refinery.whole())
            return
        self._wish = refinery.run(make_wish)
        if stages[0].needs.nothing:
            self._start(0, Evidence())

    def see(self, seen: Seen) -> None:
        """The engine has shown something."""
        if not self._open:
            return
        self._start(0 if seen.stage == "prompt" else 1, seen.evidence)

    def looked(self) -> None:
        """The prompt was read, and its answer waits: PATIENCE at most."""
        if not self._open or self._reread is None:
            return
        if self._first is None:
            self._answer_at_once("the engine did not show what the scorer needs")
        else:
            late = f"scoring took more than {PATIENCE:g} s"
            self._timer = asyncio.get_running_loop().call_later(PATIENCE, self._answer_at_once, late)

    def finish(self, then: Callable[[], None]) -> None:
        """The generation came to its end: call `then` once nothing is under way, in PATIENCE at most."""
        if self._open and self._refinery.stages and self._first is None:
            self._tell(0, self._refinery.whole("the engine did not show what the scorer needs"))
        if not self._under_way:
            self.drop()
            then()
            return
        self._then = then
        self._timer = asyncio.get_running_loop().call_later(PATIENCE, self._give_up)

    def drop(self) -> None:
        """Nobody wants it any more."""
        self._open = False
        self._then = None
        if self._timer is not None:
            self._timer.cancel()
        for waiting in self._under_way.values():
            waiting.cancel()
        self._under_way.clear()

    def _start(self, stage: int, evidence: Evidence) -> None:
        if stage == 0:
            self._first = future = self._refinery.run(self._refine_first, evidence)
        elif self._first is not None:
            future = self._refinery.run(self._refine_second, self._first, evidence)
        else:
            return
        waiting = asyncio.wrap_future(future)
        self._under_way[stage] = waiting
        waiting.add_done_callback(lambda _: self._done(stage))

    # In the refinery's one thread, where what was begun before is done.

    def _refine_first(self, evidence: Evidence) -> Refined | None:
        try:
            wish = self._wish.result()
        except Exception:
            logger.exception("a prompt cannot be refined")
            return self._refinery.whole("the service failed to read the prompt's parts")
        if wish is None:
            return self._refinery.whole("the chat template changes the messages' text")
        return self._refinery.refine(wish, 0, evidence)

    def _refine_second(self, first: Future[Refined | None], evidence: Evidence) -> Refined | None:
        before = first.result()
        if before is None or before.guard != "passed":
            return None
        wish = self._wish.result()
        if wish is None:
            return None
        return self._refinery.refine(wish, 1, dataclasses.replace(evidence, earlier=before.scores), before)

    def _done(self, stage: int) -> None:
        waiting = self._under_way.pop(stage, None)
        if waiting is None:
            return
        refined = None if waiting.cancelled() else waiting.result()
        if refined is not None:
            self._tell(stage, refined)
        if self._then is not None and not self._under_way:
            then = self._then
            self.drop()
            then()

    def _answer_at_once(self, why: str) -> None:
        self.drop()
        self._tell(0, self._refinery.whole(why))

    def _give_up(self) -> None:
        then = self._then
        self.drop()
        if then is not None:
            then()

    def _tell(self, stage: int, refined: Refined) -> None:
        self._metrics.observe_refinement(refined.scorer, refined.guard, refined.kept_share, refined.cost_s)
        self._send(
            Refinement(
                self._name,
                stage=stage + 1,
                final=stage > 0 or not self._second or refined.guard != "passed",
                unit=self._extent.unit,
                keep=self._extent.whole if refined.keep is None else refined.keep,
                guard=refined.guard,
                detail=refined.detail,
                scorer=refined.scorer,
                cost_ms=refined.cost_s * 1000,
                reread=self._reread is not None and refined.spans is not None,
            )
        )
        if self._reread is not None:
            reread, self._reread = self._reread, None
            if self._timer is not None:
                self._timer.cancel()
            reread(refined.spans)
