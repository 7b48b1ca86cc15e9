"""Prompts of three times the device's context: the cloud reads all, a refinement makes it fit, the device finishes."""

from __future__ import annotations

import asyncio
from pathlib import Path

from benchmarks.conversing.figures import Figure
from demos.side_by_side.cloud_process import CloudProcess, CloudSettings
from demos.training.logbook import held_out
from device_sdk import HybridClient, Mode, PaceSettings, SplitSettings
from model_runtime.loading import load_engine

#: The cloud's share of an answer of twenty tokens and more, and no extension: the device really finishes it.
GRANT = 6
ANSWER_TOKENS = 96
TIMES = 3


async def long_prompts(device: Path, cloud: Path, context: int, cases: int, log: Path) -> list[Figure]:
    """Held-out lookups. The same questions to the cloud's model alone stand beside them: what it gets wrong, no device
    can finish rightly."""
    split = SplitSettings(grant=GRANT, max_grant=GRANT, pace=PaceSettings(mode="off"))
    right = alone = finished = fitted = longest = 0
    tokens: list[float] = []
    reasons: dict[str, int] = {}
    engine = await asyncio.to_thread(load_engine, device, threads=1, context_length=context)
    with engine:
        async with (
            CloudProcess(CloudSettings(str(cloud), log, threads=1)) as process,
            HybridClient(device=engine, cloud=f"ws://127.0.0.1:{process.port}", split=split) as client,
        ):
            for case in held_out("lookup", TIMES * context, cases, seed=23):
                answer = await client.generate(case.messages, max_tokens=ANSWER_TOKENS)
                whole = await client.generate(case.messages, max_tokens=ANSWER_TOKENS, mode=Mode.ONLY_IN_CLOUD)
                report = answer.report
                right += answer.text == case.answer
                alone += whole.text == case.answer
                finished += report.device_tokens > 0
                fitted += report.device_tokens > 0 and report.prompt_kept * report.prompt_tokens <= context
                tokens.append(report.prompt_tokens / context)
                longest = max(longest, report.prompt_tokens)
                decision = "none came" if report.guard is None else report.guard.decision
                reasons[decision] = reasons.get(decision, 0) + 1
    share = right / cases
    details = {"guard": reasons, "context": context, "longest_prompt": longest, "cases": cases}
    return [
        Figure("prompt ÷ context", min(tokens), values=tokens, aim="about 3", reached=min(tokens) > 0.9 * TIMES),
        Figure("right, split", share, aim="at least 0.90", reached=share >= 0.9, details=details),
        Figure("right, cloud's model alone", alone / cases),
        Figure("finished by the device", finished / cases),
        Figure("of these, read within its context", fitted / max(finished, 1), aim="1", reached=fitted == finished),
    ]
