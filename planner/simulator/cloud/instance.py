"""One instance: places, a bounded queue, and an engine that runs pass after pass with continuous batching.

Every generation in progress decodes one token in every pass, and what is left of the pass's tokens goes to prompts in
order of arrival. So a generation that decodes is a number: when it began, and in which pass it ends. Passes that nobody
needs to hear of one by one are made in one go.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from device_sdk.testing.virtual_time import EventLoop
    from planner.simulator.cloud.accelerator import Accelerator
    from planner.simulator.cloud.job import End, Job
    from planner.simulator.cloud.prefix_cache import PrefixCache

#: Passes made in one go at most: their time is that of the contexts at the beginning.
LONGEST_STRETCH = 64
#: Passes kept beyond those that a seated generation still refers to.
KEPT_PASSES = 20_000


class Instance:
    """`role`: `mixed` does both; `prefill` hands a generation on with its first token (`hand_on`); `decode` takes what
    was handed on."""

    def __init__(
        self,
        loop: EventLoop,
        accelerator: Accelerator,
        *,
        places: int,
        pass_tokens: int,
        role: Literal["mixed", "prefill", "decode"] = "mixed",
        prefixes: PrefixCache | None = None,
        deadline: float | None = None,
        hand_on: Callable[[Job], None] = lambda _: None,
    ) -> None:
        self.loop, self.accelerator = loop, accelerator
        self.places, self.pass_tokens, self.role = places, pass_tokens, role
        self.prefixes, self.deadline, self.hand_on = prefixes, deadline, hand_on
        self.busy_seconds = 0.0
        self.waiting: deque[Job] = deque()
        self._prefilling: list[Job] = []
        self._decoding: set[Job] = set()
        self._watched: list[Job] = []
        self._leaving: list[Job] = []  # those that end with the pass under way
        self._lingering: dict[Job, float] = {}
        self._context = 0  # tokens in the KV caches of those that decode, as of the pass `_context_at`
        self._order = itertools.count()
        self._ends: list[tuple[int, int, Job]] = []  # (last pass, order, job)
        # Of each pass: when it ended, and the engine time of one token's share, summed up from the first pass on.
        self._times: list[float] = []
        self._shares: list[float] = [0.0]
        self._base = 0  # number of the first pass in these lists
        self._chunks: list[tuple[Job, int]] = []
        self._ahead: list[tuple[float, float]] = []  # (end, seconds) of the passes under way
        self._version = 0

    @property
    def held(self) -> int:
        """Generations that run or wait; those that linger make way for others."""
        return len(self.waiting) + len(self._prefilling) + len(self._decoding)

    @property
    def _passes(self) -> int:
        return self._base + len(self._times)

    # --- what the gateway says ---------------------------------------------------------------------------------------

    def take(self, job: Job) -> None:
        job.instance = self
        self.waiting.append(job)
        self._wake()

    def extend(self, job: Job, grant: int) -> None:
        if job.over or grant <= job.grant:
            return
        job.grant = grant
        if job in self._lingering:
            del self._lingering[job]
            if self.role == "prefill":
                self._pass_on(job)
            else:
                self.waiting.appendleft(job)
                self._wake()
        elif job in self._decoding:
            self._plan_end(job)
            self._wake()

    def stop(self, job: Job) -> None:
        """It ends with the pass under way."""
        if job.over:
            return
        if job in self._decoding or job in self._prefilling:
            job.leaving = True
            self._leaving.append(job)
            self._wake()
            return
        if job in self._lingering:
            del self._lingering[job]
        else:
            self.waiting.remove(job)
        self._end(job, "stopped")

    # --- passes ------------------------------------------------------------------------------------------------------

    def _wake(self) -> None:
        """Something changed: begin a pass, or have those under way end with the first of them."""
        if not self._ahead:
            self._begin()
        elif len(self._ahead) > 1:
            now = self.loop.now
            keep = next((i for i, (end, _) in enumerate(self._ahead) if end >= now), len(self._ahead) - 1)
            if keep < len(self._ahead) - 1:
                del self._ahead[keep + 1 :]
                self._schedule()

    def _begin(self) -> None:
        self._seat()
        now, decoding = self.loop.now, len(self._decoding)
        tokens = self.pass_tokens - decoding
        for job in self._prefilling:
            if tokens <= 0:
                break
            take = min(job.pending, tokens)
            self._chunks.append((job, take))
            tokens -= take
        if not self._chunks and not decoding:
            return
        mean = self._context / decoding if decoding else 0.0
        chunks = [(job.prompt - job.pending, take) for job, take in self._chunks]
        seconds = self.accelerator.seconds(decoding, mean, chunks)
        count = 1
        if not self._chunks and not self._watched:
            while self._ends and self._ends[0][2].last_pass != self._ends[0][0]:
                heapq.heappop(self._ends)
            count = max(1, min(self._ends[0][0] - self._passes + 1, LONGEST_STRETCH))
        jittered, ahead = self.accelerator.jittered, self._ahead
        for _ in range(count):
            took = jittered(seconds)
            now += took
            ahead.append((now, took))
        self._schedule()

    def _schedule(self) -> None:
        self._version += 1
        version = self._version

        def finish() -> None:
            if version == self._version:
                self._finish()

        self.loop.at(self._ahead[-1][0], finish)

    def _finish(self) -> None:
        ahead, chunks = self._ahead, self._chunks
        self._ahead, self._chunks = [], []
        decoding = len(self._decoding)
        tokens = decoding + sum(count for _, count in chunks)
        share, busy = self._shares[-1], self.busy_seconds
        for end, seconds in ahead:
            self._times.append(end)
            share += seconds / tokens
            self._shares.append(share)
            busy += seconds
        self.busy_seconds = busy
        self._context += decoding * len(ahead)
        now = ahead[-1][0]
        passes = self._base + len(self._times)
        for job in self._watched:
            index = passes - job.first_pass + job.given - 1
            if index < job.length:
                job.listener.token(job, index, now)
        if self._ends and self._ends[0][0] < passes:
            self._finish_decoding()
        for job, count in chunks:
            job.pending -= count
            job.prefill_seconds += ahead[-1][1] * count / tokens
            if job.pending == 0:
                self._prefilled(job)
        if self._leaving:
            leaving, self._leaving = self._leaving, []
            for job in leaving:
                if not job.over and (job in self._decoding or job in self._prefilling):
                    self._leave(job)
                    self._end(job, "stopped")
        if len(self._times) > 2 * KEPT_PASSES:
            self._forget()
        self._begin()

    def _finish_decoding(self) -> None:
        while self._ends and self._ends[0][0] < self._passes:
            last, _, job = heapq.heappop(self._ends)
            if job.last_pass == last and job in self._decoding:
                self._leave(job)
                self._halt(job)

    def _prefilled(self, job: Job) -> None:
        now = self.loop.now
        self._prefilling.remove(job)
        job.given, job.first_at = 1, now
        if self.prefixes and job.prefix_hashes:
            self.prefixes.add(job.prefix_hashes)
        if job.length > 0:
            job.listener.token(job, 0, now)
        if job.leaving:
            self._end(job, "stopped")
        elif job.given >= job.target:
            self._halt(job)
        elif self.role == "prefill":
            self._pass_on(job)
        else:
            self._decode(job)

    # --- places ------------------------------------------------------------------------------------------------------

    def _seat(self) -> None:
        while self.waiting:
            taken = len(self._prefilling) + len(self._decoding)
            if taken + len(self._lingering) >= self.places:
                if not self._lingering:
                    return
                oldest = min(self._lingering, key=self._lingering.__getitem__)
                del self._lingering[oldest]
                self._end(oldest, "grant")
            job = self.waiting.popleft()
            if job.given:
                self._decode(job)
            elif self.deadline is not None and self.loop.now - job.arrived > self.deadline:
                self._end(job, "rejected")
            else:
                job.cached = self.prefixes.match(job.prefix_hashes, job.prompt) if self.prefixes else 0
                job.pending = job.prompt - job.cached
                self._prefilling.append(job)

    def _decode(self, job: Job) -> None:
        job.seated_at = self.loop.now
        job.first_pass = self._passes
        self._decoding.add(job)
        self._context += job.prompt + job.given
        if job.watched:
            self._watched.append(job)
        self._plan_end(job)

    def _plan_end(self, job: Job) -> None:
        job.last_pass = job.first_pass + (job.target - job.given) - 1
        heapq.heappush(self._ends, (job.last_pass, next(self._order), job))

    def _leave(self, job: Job) -> None:
        """Out of the batch: from here on the job itself knows what it was given."""
        if job in self._decoding:
            self._decoding.remove(job)
            if job.watched:
                self._watched.remove(job)
            first, past = job.first_pass - self._base, len(self._times)
            self._context -= job.prompt + job.given + max(past - first, 0)
            if past > first:
                job.times += self._times[first:past]
                job.decode_seconds += self._shares[past] - self._shares[first]
                job.given += past - first
            job.slot_seconds += self.loop.now - job.seated_at
        else:
            self._prefilling.remove(job)

    def _halt(self, job: Job) -> None:
        if job.given > job.length:
            self._end(job, "eos")
        elif job.linger and not job.leaving:
            until = self.loop.now + job.linger
            self._lingering[job] = until

            def expire() -> None:
                if self._lingering.get(job) == until:
                    del self._lingering[job]
                    self._end(job, "grant")
                    self._wake()

            self.loop.at(until, expire)
        else:
            self._end(job, "grant")

    def _pass_on(self, job: Job) -> None:
        job.instance = None
        self.hand_on(job)

    def _end(self, job: Job, end: End) -> None:
        job.over, job.instance = True, None
        job.listener.ended(job, end, self.loop.now)

    def _forget(self) -> None:
        """Drop the passes that no generation in progress began before."""
        oldest = min((job.first_pass for job in self._decoding), default=self._passes)
        drop = min(oldest - self._base, len(self._times))
        if drop > 0:
            del self._times[:drop]
            del self._shares[:drop]
            self._base += drop
