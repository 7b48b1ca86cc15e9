"""Emulated hardware: a real engine whose passes take as long as on hardware that is not here."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
import os
import random
import sys
import threading
import time
from typing import TYPE_CHECKING, Protocol

from model_runtime.core import Engine, Logits
from model_runtime.errors import Cancelled

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from model_runtime.core import Cancellation, Chunk, Result
    from model_runtime.profiles import HardwareProfile

log = logging.getLogger(__name__)


#: A yielding pass begins this many times earlier than the machine would need, by what it needed lately.
_AHEAD = 2.0
#: What a pass needed for each token counts less by this share with each pass after it.
_FADES = 0.1
#: Of a thread that yields: a tenth of what another one gets on the same core (sched(7), nice levels).
_NICENESS = 10


class Sleep(Protocol):
    """Waits for `seconds`, or until cancelled; returns whether it was cancelled."""

    def __call__(self, seconds: float, cancellation: Cancellation | None, /) -> bool: ...


def sleep(seconds: float, cancellation: Cancellation | None = None) -> bool:
    """Real waiting, without spinning: it ends within about 0.1 ms of the time on an idle machine, never before."""
    if cancellation is not None:
        return cancellation.wait(seconds)
    time.sleep(seconds)
    return False


class EmulatedEngine(Engine):
    """Runs each pass on the real `engine`, and waits until the profile's time for it is over.

    A pass is stretched, never shortened: where this machine is slower than the profile, the pass takes the machine's
    time and is counted in `slower_passes`. One thing is made good: a pass of which nothing was asked (a prompt's chunk
    without logits or taps) may end too late unseen, so the next begins when that one should have ended, less what the
    hardware was left idle between. A prompt in chunks then takes the profile's time wherever this machine can read all
    of it in that. Only passes are emulated; moving, forking and rewinding KV take what they
    take. Everything that `info` says about hardware is marked as emulated.
    """

    def __init__(
        self,
        engine: Engine,
        profile: HardwareProfile,
        *,
        seed: int = 0,
        yields: bool = False,
        clock: Callable[[], float] = time.perf_counter,
        sleep: Sleep = sleep,
    ) -> None:
        """Owns `engine` from now on. `seed` is of the jitter; `clock` gives seconds and `sleep` moves it on.

        `yields`: slow hardware that is emulated beside fast one leaves this machine's cores to it. The real work of a
        pass is done at the end of its time, as far as that can be foreseen, and not at its beginning; where it was
        foreseen wrongly, the pass takes longer and is counted. On Linux the thread that runs passes also gets a lower
        priority, for good.
        """
        self.profile = profile
        self.tokenizer = engine.tokenizer
        self.passes = 0
        #: Passes for which this machine took longer than the profile, and by how much at most.
        self.slower_passes = 0
        self.worst_excess_ms = 0.0
        self._engine = engine
        self._clock = clock
        self._sleep = sleep
        self._random = random.Random(seed)
        self._yields = yields
        self._thread: int | None = None
        #: By whether a pass has several tokens: seconds that each of them took, at most, lately.
        self._rates: dict[bool, float] = {}
        #: When the last pass ended, and how much too late where nobody saw that.
        self._ended = -math.inf
        self._behind = 0.0
        capabilities = engine.info.capabilities
        self.info = dataclasses.replace(
            engine.info,
            hardware=f"emulated: {profile.title} (really {engine.info.hardware})",
            capabilities=dataclasses.replace(
                capabilities,
                batched=capabilities.batched and profile.batch_share is not None,
                chunk_length=profile.prefill_block if profile.prefill_block > 1 else capabilities.chunk_length,
            ),
            details={
                **engine.info.details,
                "emulated": profile.name,
                "emulated_source": profile.source,
                "emulated_approximate": "; ".join(profile.approximate),
            },
        )

    def open(self) -> int:
        return self._engine.open()

    def close(self, sequence: int) -> None:
        self._engine.close(sequence)

    def fork(self, sequence: int) -> int:
        return self._engine.fork(sequence)

    def truncate(self, sequence: int, length: int) -> None:
        self._engine.truncate(sequence, length)

    def length(self, sequence: int) -> int:
        return self._engine.length(sequence)

    def export_kv(self, sequence: int) -> bytes:
        return self._engine.export_kv(sequence)

    def import_kv(self, data: bytes) -> int:
        return self._engine.import_kv(data)

    def forward(self, chunks: Sequence[Chunk], cancellation: Cancellation | None = None) -> list[Result]:
        """As in the contract; also interrupted while it waits, and then undone like any cancelled pass."""
        if self._yields:
            self._lower_priority()
        started = self._clock()
        owed = max(0.0, self._behind - (started - self._ended))
        self._behind = 0.0
        before = [(chunk.sequence, self._engine.length(chunk.sequence)) for chunk in chunks]
        due = (
            started
            - owed
            + self._jittered([(length, len(chunk.tokens)) for (_, length), chunk in zip(before, chunks, strict=True)])
        )
        tokens = sum(len(chunk.tokens) for chunk in chunks)
        if self._yields:
            spare = due - started - _AHEAD * self._rates.get(tokens > 1, math.inf) * tokens
            if spare > 0 and self._sleep(spare, cancellation):
                raise Cancelled("the pass was cancelled by its caller; every sequence is as before it")
        began = self._clock()
        results = self._engine.forward(chunks, cancellation)
        rate = (self._clock() - began) / max(tokens, 1)
        self._rates[tokens > 1] = max(rate, (1 - _FADES) * self._rates.get(tokens > 1, 0.0))
        self.passes += 1
        left = due - self._clock()
        if left < 0:
            self._note_slower(-left * 1000)
            self._behind = 0.0 if any(map(_is_seen, chunks)) else -left
        # A sleep may end a little early by the clock in use; the pass must not.
        while left > 0:
            if self._sleep(left, cancellation):
                for sequence, length in before:
                    self._engine.truncate(sequence, length)
                raise Cancelled("the pass was cancelled by its caller; every sequence is as before it")
            left = due - self._clock()
        self._ended = self._clock()
        return results

    def shutdown(self) -> None:
        self._engine.shutdown()

    def _jittered(self, chunks: Sequence[tuple[int, int]]) -> float:
        """Seconds that this pass takes on the emulated hardware."""
        factor = self._random.lognormvariate(-(self.profile.jitter**2) / 2, self.profile.jitter)
        return self.profile.pass_ms(chunks) * factor / 1000

    def _lower_priority(self) -> None:
        """Once for each thread; where the system has no priorities of threads, it stays as it is."""
        thread = threading.get_native_id()
        if thread != self._thread and sys.platform == "linux":
            self._thread = thread
            with contextlib.suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, thread, _NICENESS)

    def _note_slower(self, excess_ms: float) -> None:
        if not self.slower_passes:
            log.warning(
                "this machine is slower than the emulated %s: a pass took %.1f ms longer; "
                "such passes are counted, and what is measured of them is this machine",
                self.profile.name,
                excess_ms,
            )
        self.slower_passes += 1
        self.worst_excess_ms = max(self.worst_excess_ms, excess_ms)
        self.info.details["slower_passes"] = f"{self.slower_passes} of {self.passes}"
        self.info.details["worst_excess_ms"] = f"{self.worst_excess_ms:.1f}"


def _is_seen(chunk: Chunk) -> bool:
    return chunk.logits is not Logits.NONE or chunk.tap is not None
