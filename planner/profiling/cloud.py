"""How fast a live service is, alone and under concurrency: what `pd-plan profile cloud` runs."""

from __future__ import annotations

import asyncio
import random
import statistics
from collections.abc import Callable
from dataclasses import dataclass

from model_runtime.profiles import HardwareProfile, Measurement
from planner.errors import MeasurementError
from planner.profiling.device import Provenance
from planner.profiling.fits import batch_share, relative_deviation, rising
from planner.profiling.live import Heard, Live


@dataclass(frozen=True, slots=True)
class CloudPlan:
    """What is measured. Words of a prompt; the service says how many tokens they are."""

    words: tuple[int, ...] = (64, 256, 512, 1024)
    concurrency: tuple[int, ...] = (1, 2, 4, 8)
    grant: int = 24
    repeats: int = 3


async def measure_cloud(
    live: Live, plan: CloudPlan, provenance: Provenance, *, progress: Callable[[str], None] = lambda _: None
) -> HardwareProfile:
    """The engine's times as the service itself reports them (`finished.usage`); the passes' times under concurrency as
    tokens arrive. Raises MeasurementError."""
    rng = random.Random(0)
    await live.ask(_words(rng, 16), 2)  # the first pass after loading is slow
    alone: dict[int, list[Heard]] = {}
    for words in plan.words:
        for _ in range(plan.repeats):
            progress(f"a prompt of {words} words")
            heard = await live.ask(_words(rng, words), plan.grant)
            if heard.usage.cached_tokens:
                raise MeasurementError("the service answered from a cache, so its prefill cannot be measured")
            alone.setdefault(words, []).append(heard)
    crowds = {count: await _crowd(live, plan, rng, count, progress) for count in plan.concurrency}
    passes = {
        count: 1000 * statistics.median(rates)
        for count, crowd in crowds.items()
        if (rates := [tpot for heard in crowd if (tpot := heard.tpot())])
    }
    prefills = [(_tokens(group), statistics.median(map(_prefill_ms, group))) for group in alone.values()]
    points, dropped = rising(prefills)
    decodes = [(_tokens(group), statistics.median(times)) for group in alone.values() if (times := _decode_ms(group))]
    if not decodes:
        raise MeasurementError("every answer ended with its first token; ask with another model, or a longer grant")
    times = [
        _prefill_ms(heard) / heard.usage.prompt_tokens * tokens / ms
        for (tokens, ms), group in zip(prefills, alone.values(), strict=True)
        for heard in group
    ]
    return HardwareProfile(
        name=provenance.name,
        kind="datacentre",
        title=provenance.title,
        source=f"measured by pd-plan profile cloud through the live service, {provenance.date}",
        approximate=tuple(f"{tokens} prompt tokens: left out, they took no longer than fewer" for tokens in dropped),
        measured=Measurement(
            date=provenance.date,
            machine=provenance.machine,
            command=provenance.command,
            model=live.connection.welcome.model,
            engine=live.connection.welcome.server,
            points={
                "prompt_tokens_then_prefill_ms": [
                    [heard.usage.prompt_tokens, _prefill_ms(heard)] for group in alone.values() for heard in group
                ],
                "concurrency_then_ttft_ms_then_ms_per_token": [
                    [count, 1000 * heard.arrivals[0][0], 1000 * (heard.tpot() or 0.0)]
                    for count, crowd in crowds.items()
                    for heard in crowd
                    if heard.arrivals
                ],
            },
        ),
        prefill_tokens_per_s=tuple((tokens, tokens / max(1e-6, ms) * 1000) for tokens, ms in points),
        decode_ms=tuple((tokens, max(1e-6, ms)) for tokens, ms in decodes),
        jitter=relative_deviation(times),
        batch_share=batch_share(passes),
    )


async def _crowd(
    live: Live, plan: CloudPlan, rng: random.Random, count: int, progress: Callable[[str], None]
) -> list[Heard]:
    progress(f"{count} at once")
    crowd = await asyncio.gather(*(live.ask(_words(rng, plan.words[0]), plan.grant) for _ in range(count)))
    for heard in crowd:
        _ = heard.usage  # raises where one was refused
    return crowd


def _tokens(group: list[Heard]) -> int:
    """Prompts of equally many words differ by a few tokens."""
    return round(statistics.mean(heard.usage.prompt_tokens for heard in group))


def _prefill_ms(heard: Heard) -> float:
    return heard.usage.prefill_ms


def _decode_ms(group: list[Heard]) -> list[float]:
    usages = [heard.usage for heard in group]
    return [usage.decode_ms / (usage.output_tokens - 1) for usage in usages if usage.output_tokens > 1]


def _words(rng: random.Random, count: int) -> str:
    """A prompt that no cache has seen."""
    return " ".join("".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=4)) for _ in range(count))
