"""How fast an engine is here: what `pd-plan profile device` runs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from model_runtime.core import Chunk, Engine, Logits
from model_runtime.errors import ModelRuntimeError
from model_runtime.profiles import HardwareProfile, Measurement
from planner.errors import MeasurementError
from planner.profiling.fits import batch_share, overhead_ms, relative_deviation, rising


@dataclass(frozen=True, slots=True)
class DevicePlan:
    """What is measured. Sizes in tokens; what does not fit the context is left out."""

    prompts: tuple[int, ...] = (128, 256, 512, 1024, 2048, 4096)
    chunks: tuple[int, ...] = (32, 64, 128, 256, 512)
    contexts: tuple[int, ...] = (16, 512, 1024, 2048, 4096)
    batches: tuple[int, ...] = (1, 2, 4, 8)
    decode_steps: int = 16
    repeats: int = 3
    #: Seconds of uninterrupted work, to see what heat does; 0: not measured.
    sustained: float = 0.0


@dataclass(frozen=True, slots=True)
class Provenance:
    """What the measurement is of, in words."""

    name: str
    title: str
    date: str
    machine: str
    command: str


def measure_device(
    engine: Engine,
    plan: DevicePlan,
    provenance: Provenance,
    *,
    load_ms: float | None = None,
    memory_mib: float | None = None,
    clock: Callable[[], float] = time.perf_counter,
    progress: Callable[[str], None] = lambda _: None,
) -> HardwareProfile:
    """The profile of `engine`, which nobody else may use meanwhile. Raises MeasurementError."""
    try:
        return _Bench(engine, plan, clock, progress).profile(provenance, load_ms, memory_mib)
    except ModelRuntimeError as error:
        raise MeasurementError(f"the engine failed while it was measured: {error}") from error


class _Bench:
    def __init__(
        self, engine: Engine, plan: DevicePlan, clock: Callable[[], float], progress: Callable[[str], None]
    ) -> None:
        self._engine = engine
        self._plan = plan
        self._clock = clock
        self._progress = progress
        self._room = engine.info.context_length - plan.decode_steps - 1
        self._block = engine.info.capabilities.chunk_length or 1

    def profile(self, provenance: Provenance, load_ms: float | None, memory_mib: float | None) -> HardwareProfile:
        warm_up = self._warm_up()
        by_chunk = self._by_chunk()
        chunk = min(by_chunk, key=lambda size: by_chunk[size])
        middle = max(size for size in self._prompts() if size <= max(512, min(self._prompts())))
        overhead = overhead_ms(by_chunk, middle)
        prefills = {tokens: self._repeated(tokens, chunk) for tokens in self._prompts()}
        points, dropped = rising([(tokens, statistics.median(times)) for tokens, times in prefills.items()])
        steps = {context: self._decode(context, 1) for context in self._contexts()}
        batches = self._batches()
        sustained = self._sustained(middle, chunk, statistics.median(prefills[middle]))
        info = self._engine.info
        approximate = [f"{tokens} prompt tokens: left out, they took no longer than fewer" for tokens in dropped]
        if overhead == 0:
            approximate.append("pass_overhead_ms: smaller chunks took no longer")
        return HardwareProfile(
            name=provenance.name,
            title=provenance.title,
            source=f"measured by pd-plan profile device on {provenance.machine}, {provenance.date}",
            approximate=tuple(approximate),
            measured=Measurement(
                date=provenance.date,
                machine=provenance.machine,
                command=provenance.command,
                model=info.model,
                quantization=info.details.get("quantization", ""),
                engine=f"{info.engine} on {info.hardware}",
                points={
                    "prefill_tokens_then_ms": [[tokens, *times] for tokens, times in prefills.items()],
                    f"chunk_then_ms_for_{middle}_tokens": [[size, time] for size, time in by_chunk.items()],
                    "context_then_ms_per_decoded_token": [[context, *times] for context, times in steps.items()],
                    "sequences_then_ms_per_decode_pass": [[count, time] for count, time in batches.items()],
                },
            ),
            # The overhead of the passes is told apart, so that other chunks can be forecast.
            prefill_tokens_per_s=tuple(
                (tokens, tokens / max(1e-6, ms - overhead * -(-tokens // chunk)) * 1000) for tokens, ms in points
            ),
            prefill_block=self._block,
            decode_ms=tuple(
                (context, max(1e-6, statistics.median(times) - overhead)) for context, times in steps.items()
            ),
            pass_overhead_ms=overhead,
            jitter=relative_deviation([time for times in steps.values() for time in _normed(times)]),
            spread=relative_deviation([time for times in prefills.values() for time in _normed(times)]),
            batch_share=batch_share({count: ms - overhead for count, ms in batches.items()}),
            load_ms=load_ms,
            memory_mib=memory_mib,
            warm_up_ms=warm_up,
            sustained=sustained,
        )

    # --- what is asked of the engine -----------------------------------------------------------------------------

    def _prompts(self) -> list[int]:
        fitting = [tokens for tokens in self._plan.prompts if tokens <= self._room]
        if not fitting:
            raise MeasurementError(
                f"the model's context of {self._engine.info.context_length} tokens is too short to measure anything; "
                f"at least {min(self._plan.prompts) + self._plan.decode_steps + 1} are needed"
            )
        return fitting

    def _contexts(self) -> list[int]:
        return [tokens for tokens in self._plan.contexts if tokens <= self._room] or [1]

    def _warm_up(self) -> float:
        """How much longer the first pass takes than the same pass later, in ms."""
        self._progress("first pass")
        tokens = min(self._prompts())
        first = self._prefill(tokens, tokens)
        return max(0.0, first - statistics.median(self._prefill(tokens, tokens) for _ in range(2)))

    def _by_chunk(self) -> dict[int, float]:
        tokens = max(size for size in self._prompts() if size <= max(512, min(self._prompts())))
        sizes = sorted({max(self._block, size - size % self._block) for size in self._plan.chunks})
        found: dict[int, float] = {}
        for size in sizes:
            if size <= tokens:
                self._progress(f"prefill in chunks of {size}")
                found[size] = statistics.median(self._prefill(tokens, size) for _ in range(self._plan.repeats))
        return found or {tokens: statistics.median(self._prefill(tokens, tokens) for _ in range(self._plan.repeats))}

    def _repeated(self, tokens: int, chunk: int) -> list[float]:
        self._progress(f"prefill of {tokens} tokens")
        return [self._prefill(tokens, chunk) for _ in range(self._plan.repeats)]

    def _batches(self) -> dict[int, float]:
        """Sequences → ms of a decode pass; empty for an engine that runs them one after the other."""
        if not self._engine.info.capabilities.batched:
            return {}
        most = self._engine.info.max_sequences
        context = min(self._contexts())
        return {count: statistics.median(self._decode(context, count)) for count in self._plan.batches if count <= most}

    def _sustained(self, tokens: int, chunk: int, usual: float) -> tuple[tuple[float, float], ...]:
        """(seconds of work, share of the first speed) in four stretches."""
        if not self._plan.sustained:
            return ()
        begun = self._clock()
        quarter = self._plan.sustained / 4
        stretches: list[tuple[float, float]] = []
        for number in range(1, 5):
            self._progress(f"sustained work, {number} of 4")
            times: list[float] = []
            while not times or self._clock() - begun < number * quarter:
                times.append(self._prefill(tokens, chunk))
            stretches.append((round(self._clock() - begun, 3), usual / statistics.median(times)))
        return tuple(stretches)

    # --- passes, in ms -------------------------------------------------------------------------------------------

    def _prefill(self, tokens: int, chunk: int) -> float:
        sequence = self._engine.open()
        try:
            begun = self._clock()
            self._read(sequence, tokens, chunk)
            return (self._clock() - begun) * 1000
        finally:
            self._engine.close(sequence)

    def _decode(self, context: int, count: int) -> list[float]:
        """Passes in which `count` sequences of `context` tokens decode one token each."""
        self._progress(f"decode at {context} tokens, {count} at once")
        sequences = [self._engine.open() for _ in range(count)]
        try:
            for sequence in sequences:
                self._read(sequence, context, max(self._block, 256))
            times: list[float] = []
            for step in range(self._plan.decode_steps + 1):
                chunks = [Chunk(sequence, self._tokens(step, 1)) for sequence in sequences]
                begun = self._clock()
                self._engine.forward(chunks)
                times.append((self._clock() - begun) * 1000)
            return times[1:]  # the first one after a prefill warms its own shape up
        finally:
            for sequence in sequences:
                self._engine.close(sequence)

    def _read(self, sequence: int, tokens: int, chunk: int) -> None:
        for at in range(0, tokens, chunk):
            size = min(chunk, tokens - at)
            self._engine.forward([Chunk(sequence, self._tokens(at, size), Logits.LAST)])

    def _tokens(self, start: int, count: int) -> Sequence[int]:
        size = self._engine.info.vocabulary_size
        return [(start + index) % size for index in range(count)]


def _normed(times: list[float]) -> list[float]:
    middle = statistics.median(times)
    return [time / middle for time in times] if middle else []
