"""First tokens of the live service while others ask, at the arrival times of a workload, beside the simulator's.

The devices' own work is not what a crowd changes, so none takes part: each request is what the plan has its device ask
of the cloud, over one connection.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from device_sdk.errors import CloudError
from model_runtime.core import Tokenizer
from planner.core import Request, Route, SplitConfig, Workload
from planner.errors import MeasurementError
from planner.policies.alone import InCloud
from planner.profiling.live import Heard, Live
from planner.simulator.world import Setup, simulate
from planner.validation.errors import Row
from planner.validation.trials import prompt_of
from wire_protocol.messages import Rejected

#: Simulated runs that a forecast is pooled from.
SEEDS = 5


@dataclass(frozen=True, slots=True)
class Loaded:
    """`requests` as they turned out: when they were asked, and the tokens of prompts and answers; `ttft`: seconds."""

    requests: tuple[Request, ...]
    ttft: tuple[float, ...]
    rejected: int = 0


async def run_under_load(
    live: Live,
    tokenizer: Tokenizer,
    config: SplitConfig,
    requests: Sequence[Request],
    *,
    seed: int = 0,
    progress: Callable[[str], None] = lambda _: None,
) -> Loaded | None:
    """Ask at the requests' arrival times, whoever is still being answered. None where the plan leaves them all to the
    device. Raises MeasurementError, also where nothing was answered; cancelled, all that are asked are."""
    rng = random.Random(seed)
    asked = [(request, grant) for request in requests if (grant := _grant(config, request)) > 0]
    if not asked:
        progress("the plan leaves all of these requests to the device: there is no load")
        return None
    texts = [str(prompt_of(tokenizer, request.prompt_tokens, rng)[0]["content"]) for request, _ in asked]
    progress(f"{len(asked)} requests at their arrival times")
    loop, first = asyncio.get_running_loop(), asked[0][0].arrival
    begun = loop.time()

    async def one(request: Request, grant: int, text: str) -> tuple[float, Heard]:
        await asyncio.sleep(max(0.0, begun + request.arrival - first - loop.time()))
        at = loop.time() - begun
        return at, await live.ask(text, grant)

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(*each, text)) for each, text in zip(asked, texts, strict=True)]
    except* (CloudError, MeasurementError) as errors:
        raise MeasurementError(str(errors.exceptions[0])) from errors
    heard = [task.result() for task in tasks]
    refused = [each for _, each in heard if isinstance(each.end, Rejected)]
    answered = [(at, each) for at, each in heard if each.arrivals]
    if not answered:
        raise MeasurementError("no request was answered with a single token: nothing can be compared")
    return Loaded(
        tuple(Request(at, each.usage.prompt_tokens, each.usage.output_tokens) for at, each in answered),
        tuple(each.arrivals[0][0] for _, each in answered),
        len(refused),
    )


def loaded_row(loaded: Loaded, setup: Setup) -> Row:
    """The 95th percentile of TTFT under load, in ms, as simulated for the very same requests, and as measured."""
    workload = Workload("loaded", "as they were asked", lambda _: iter(loaded.requests))
    forecasts = [
        simulate(replace(setup, seed=setup.seed + seed), workload, InCloud()).outcomes.column("ttft")
        for seed in range(SEEDS)
    ]
    predicted = 1000 * float(np.nanquantile(np.concatenate(forecasts), 0.95))
    measured = 1000 * float(np.quantile(loaded.ttft, 0.95))
    return Row("ttft_p95_under_load_ms", len(loaded.ttft), predicted, measured, abs(predicted - measured) / measured)


def _grant(config: SplitConfig, request: Request) -> int:
    """Tokens that a device would ask of the cloud; 0: it does not ask."""
    bucket = config.bucket(request.prompt_tokens)
    if bucket.route is Route.DEVICE:
        return 0
    return request.output_tokens if bucket.route is Route.CLOUD else min(bucket.grant, request.output_tokens)
