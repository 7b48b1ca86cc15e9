"""Made-up answers, so that what shows them is tested without models."""

from __future__ import annotations

from typing import Any

import pytest

from demos.side_by_side.questions import Question
from demos.side_by_side.runs import Run, Trio
from device_sdk.report import Answer, Guard, Report, Source, SourceSpan, Timeline
from device_sdk.settings import Mode

TEXT = "12 Ada Brook moved the red pump."


def answered(
    mode: Mode,
    ttft: float,
    tokens: int,
    cloud_tokens: int,
    *,
    prompt_tokens: int = 1_000,
    busy_ms: float | None = None,
    prompt_kept: float = 1.0,
    guard: Guard | None = None,
) -> Answer:
    """`tokens` tokens shown every 50 ms from `ttft` seconds on; the cloud's arrive at once."""
    releases = [ttft + 0.05 * i for i in range(tokens)]
    arrivals = [ttft if i < cloud_tokens else release for i, release in enumerate(releases)]
    bounds = ((Source.CLOUD, 0, cloud_tokens), (Source.DEVICE, cloud_tokens, tokens))
    used_device = cloud_tokens < tokens
    return Answer(
        TEXT,
        tuple(range(tokens)),
        Report(
            mode=mode,
            finish_reason="eos",
            prompt_tokens=prompt_tokens,
            spans=tuple(SourceSpan(*bound) for bound in bounds if bound[1] < bound[2]),
            ttft_ms=1000 * ttft if tokens else None,
            tpot_mean_ms=50.0 if tokens > 1 else None,
            max_gap_ms=50.0 if tokens > 1 else None,
            pace_ms=50.0,
            cloud_tokens=cloud_tokens,
            device_tokens=tokens - cloud_tokens,
            handover_index=cloud_tokens if 0 < cloud_tokens < tokens else None,
            cloud_busy_ms=busy_ms,
            prompt_kept=prompt_kept,
            refinement_ms=None if guard is None else 200.0,
            refinement_stages=0 if guard is None else 1,
            guard=guard,
            timeline=Timeline(
                arrivals=tuple(arrivals),
                releases=tuple(releases),
                device_progress=tuple((0.1 * i, 100 * i) for i in range(1, 11)) if used_device else (),
                refinements=() if guard is None else ((0.2, prompt_kept),),
            ),
        ),
    )


@pytest.fixture
def make_trio() -> Any:
    """`make_trio(tokens=…, cloud_tokens=…)`: one question in the three modes."""

    def make(
        tokens: int = 40,
        cloud_tokens: int = 10,
        busy_ms: float | None = 100.0,
        expected: str | None = TEXT,
        **refined: Any,
    ) -> Trio:
        question = Question("Who moved the pump?", "lookup", ({"role": "user", "content": "log\n\nWho?"},), expected)
        whole = None if busy_ms is None else busy_ms * 5
        return Trio(
            Run(question, Mode.ONLY_ON_DEVICE, answered(Mode.ONLY_ON_DEVICE, 1.0, tokens, 0)),
            Run(question, Mode.ONLY_IN_CLOUD, answered(Mode.ONLY_IN_CLOUD, 0.2, tokens, tokens, busy_ms=whole)),
            Run(question, Mode.SPLIT, answered(Mode.SPLIT, 0.2, tokens, cloud_tokens, busy_ms=busy_ms, **refined)),
        )

    return make
