"""How fast an engine is, measured for a few seconds with its own passes."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from model_runtime.core import Chunk, Logits

if TYPE_CHECKING:
    from collections.abc import Callable

    from model_runtime.core import Engine

#: A third of the time goes to prefill, the rest to decoding.
_PREFILL_SHARE = 1 / 3
_CHUNK = 256


@dataclass(frozen=True, slots=True)
class Measured:
    """Medians. `prefill_tokens_per_s` in passes of `chunk` tokens, `decode_ms` a token at `context` tokens or fewer."""

    load_s: float
    chunk: int
    prefill_tokens_per_s: float
    decode_ms: float
    context: int
    passes: int
    seconds: float


def measure(
    load: Callable[[], Engine], seconds: float, clock: Callable[[], float] = time.perf_counter
) -> tuple[Engine, Measured]:
    """Load an engine and measure it for about `seconds` (each kind of pass once at least, after a first one that does
    not count). The engine is the caller's. Raises what loading and passes raise; then the engine is shut down."""
    begun = clock()
    engine = load()
    loaded = clock() - begun
    try:
        return engine, _passes(engine, loaded, seconds, clock)
    except BaseException:
        engine.shutdown()
        raise


def _passes(engine: Engine, loaded: float, seconds: float, clock: Callable[[], float]) -> Measured:
    info = engine.info
    chunk = min(info.capabilities.chunk_length or _CHUNK, max(info.context_length // 2, 1))
    tokens = [index % info.vocabulary_size for index in range(chunk)]
    sequence = engine.open()

    def timed(step: list[int]) -> float:
        if engine.length(sequence) + len(step) > info.context_length:
            engine.truncate(sequence, info.context_length // 2)
        begun = clock()
        engine.forward([Chunk(sequence, step, Logits.LAST)])
        return clock() - begun

    try:
        timed(tokens)
        timed(tokens[:1])
        begun = clock()
        prefill = [timed(tokens)]
        while clock() - begun < seconds * _PREFILL_SHARE:
            prefill.append(timed(tokens))
        decode = [timed(tokens[:1])]
        while clock() - begun < seconds:
            decode.append(timed(tokens[:1]))
        return Measured(
            load_s=loaded,
            chunk=chunk,
            prefill_tokens_per_s=chunk / statistics.median(prefill),
            decode_ms=statistics.median(decode) * 1e3,
            context=engine.length(sequence),
            passes=len(prefill) + len(decode),
            seconds=clock() - begun,
        )
    finally:
        engine.close(sequence)
