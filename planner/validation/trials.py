"""Answers of the live system at the planned settings, each with what was forecast for it."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from device_sdk.client import HybridClient
from device_sdk.errors import PdDeviceError
from device_sdk.report import Report
from model_runtime.core import Message, Tokenizer
from planner.core import Request, SplitConfig
from planner.cost import Decision, Forecast, World, forecast
from planner.errors import MeasurementError
from speed_controller.split import SplitSettings

_LETTERS = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True, slots=True)
class Trial:
    """One answer. The forecast is for the tokens that the prompt and the answer turned out to have."""

    report: Report
    forecast: Forecast
    #: The same request at the SDK's default settings, where that was asked for.
    default: Report | None = None

    @property
    def output_tokens(self) -> int:
        return self.report.cloud_tokens + self.report.device_tokens


async def run_trials(
    client: HybridClient,
    tokenizer: Tokenizer,
    world: World,
    config: SplitConfig,
    requests: Sequence[Request],
    *,
    seed: int = 0,
    warm_up: int = 0,
    beside_default: bool = False,
    progress: Callable[[str], None] = lambda _: None,
) -> list[Trial]:
    """One after the other, so that the cloud is as idle as `world.load` should say. `client` follows `config`;
    `beside_default` asks again at the default settings, in turns, with another prompt of the same length. The first
    `warm_up` requests are asked once more beforehand and not counted: a connection and first passes are paid once in a
    session. Raises MeasurementError."""
    rng = random.Random(seed)
    trials: list[Trial] = []
    for number, request in enumerate([*requests[:warm_up], *requests], start=1 - warm_up):
        name = f"answer {number}" if number > 0 else "warming up"
        progress(f"{name}: {request.prompt_tokens} prompt tokens, up to {request.output_tokens} of the answer")
        asked = [None, SplitSettings()] if beside_default else [None]
        reports: list[Report] = []
        for split in asked:
            messages = prompt_of(tokenizer, request.prompt_tokens, rng)
            try:
                answer = await client.generate(messages, max_tokens=request.output_tokens, split=split)
            except PdDeviceError as error:
                raise MeasurementError(f"{name} failed: {error}") from error
            reports.append(answer.report)
        report = reports[0]
        output = report.cloud_tokens + report.device_tokens
        if output and number > 0:
            bucket = config.bucket(report.prompt_tokens)
            decision = Decision(bucket.route, bucket.grant, bucket.keep_ratio, bucket.pace, bucket.chunk)
            seen = forecast(world, decision, report.prompt_tokens, output)
            trials.append(Trial(report, seen, reports[1] if beside_default else None))
    if not trials:
        raise MeasurementError("no request was answered with a single token: nothing can be compared")
    return trials


def prompt_of(tokenizer: Tokenizer, tokens: int, rng: random.Random) -> list[Message]:
    """A chat of about `tokens` tokens, template included, that no cache has seen."""

    def chat(words: list[str]) -> list[Message]:
        return [Message(role="user", content=" ".join(words))]

    words = ["".join(rng.choices(_LETTERS, k=rng.randint(2, 7))) for _ in range(max(1, tokens))]
    low, high = 1, len(words)
    while low < high:  # the most words that fit
        middle = (low + high + 1) // 2
        if len(tokenizer.render_chat(chat(words[:middle]))) <= tokens:
            low = middle
        else:
            high = middle - 1
    return chat(words[:low])
