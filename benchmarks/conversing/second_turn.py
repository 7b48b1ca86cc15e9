"""What the second turn of a conversation costs the device, beside the first one."""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path

from benchmarks.conversing.figures import Figure, median
from demos.training.logbook import held_out
from device_sdk import HybridClient, Mode, PaceSettings, SplitSettings
from device_sdk.conversation import Conversation
from device_sdk.report import Answer
from model_runtime.loading import load_engine

UNPACED = SplitSettings(pace=PaceSettings(mode="off"))
#: A follow-up about the same document: some thirty tokens with the template.
FOLLOW_UP = "Thank you. And who was the last one to be named in it, and what was done there?"
ANSWER_TOKENS = 24


async def second_turn(model: Path, prompt_tokens: int, rounds: int) -> list[Figure]:
    """Each round is a conversation over a document of its own; the first one is a warm-up. Every second turn's tokens
    are compared with those of a cold device: reuse must not change an answer."""
    cases = held_out("lookup", prompt_tokens, rounds + 1, seed=17)
    first, second, restored, sizes, restoring = [], [], [], [], []
    same = 0
    with await asyncio.to_thread(load_engine, model, threads=1) as engine, tempfile.TemporaryDirectory() as folder:
        async with HybridClient(device=engine, mode=Mode.ONLY_ON_DEVICE, split=UNPACED) as client:
            for number, case in enumerate(cases):
                path = Path(folder) / "talk"
                async with Conversation(client) as conversation:
                    cold = await conversation.send(case.messages, max_tokens=ANSWER_TOKENS)
                    saved = await conversation.save(path)
                    warm = await conversation.send(FOLLOW_UP, max_tokens=ANSWER_TOKENS)
                    prompt = conversation.messages[:-1]
                begun = time.perf_counter()
                async with await Conversation.restore(client, path) as back:
                    opened = time.perf_counter() - begun
                    again = await back.send(FOLLOW_UP, max_tokens=ANSWER_TOKENS)
                anew = await client.generate(prompt, max_tokens=ANSWER_TOKENS)
                if number:
                    first.append(_ttft(cold))
                    second.append(_ttft(warm))
                    restored.append(_ttft(again))
                    sizes.append(saved.kv_bytes / 1e6)
                    restoring.append(1000 * opened)
                    same += warm.token_ids == again.token_ids == anew.token_ids
    ratios = [after / before for before, after in zip(first, second, strict=True)]
    from_disk = [after / before for before, after in zip(first, restored, strict=True)]
    return [
        median("first turn's TTFT on the device", first, "ms"),
        median("second turn's TTFT on the device", second, "ms"),
        median("second ÷ first", ratios, at_most=0.10),
        median("second ÷ first, restored from disk", from_disk),
        median("KV cache saved", sizes, "MB"),
        median("restored in", restoring, "ms"),
        Figure("answers as a cold device gives them", same / rounds, aim="1", reached=same == rounds),
    ]


def _ttft(answer: Answer) -> float:
    ttft = answer.report.ttft_ms
    if ttft is None:
        raise RuntimeError("an answer without a token has no TTFT; another seed is needed")
    return ttft
