"""The cloud answers from what it has the device keep: when it is asked to, and that both go on from the same prompt."""

from __future__ import annotations

import numpy as np
import pytest

from cloud_service.refinement import Evidence, Needs, Prompt, Refinery
from device_sdk import HybridClient, PaceSettings, SplitSettings
from device_sdk.report import Answer
from model_runtime.core import Chunk
from model_runtime.testing import ScriptedEngine, ScriptedTokenizer
from tests.cloud_service.endless import talkative
from tests.cloud_service.refinement.asked import PASSES, Scripted
from tests.device_sdk.conftest import per_token
from tests.device_sdk.lying import lying_service
from tests.device_sdk.test_refinement_service import Service
from wire_protocol.messages import Refine

UNPACED = PaceSettings(mode="off")
LONG = "".join(f"The crew met at gate {number} of the north yard.\n" for number in range(40)) + "\nWho met?"
TOKENIZER = ScriptedTokenizer()
IDS = TOKENIZER.render_chat([{"role": "user", "content": LONG}])
KEEP = ((0, 30), (len(IDS) - 30, len(IDS)))


def said_to(tokens: list[int], count: int) -> tuple[int, ...]:
    """What the model says to these tokens alone, greedily."""
    engine = talkative()
    sequence, said = engine.open(), list[int]()
    while len(said) < count:
        [result] = engine.forward([Chunk(sequence, tokens)])
        tokens = [int(result.logits[-1].argmax())]
        said += tokens
    return tuple(said)


def scoring() -> Refinery:
    def score(prompt: Prompt, evidence: Evidence) -> np.ndarray:
        scores = np.zeros(len(prompt.tokens), np.float32)
        scores[[300, 500]] = 1.0
        return scores

    return Refinery([Scripted(score, Needs(layers=(0,), prompt_rows=4))], PASSES)


async def asked_of(device: ScriptedEngine, split: SplitSettings, *, offers: tuple[str, ...] = ("reread",)) -> Refine:
    """What a service was asked to keep."""
    service = Service({"unit": "tokens", "keep": KEEP, "reread": "reread" in offers})
    async with (
        lying_service(service, offers=offers) as url,  # type: ignore[arg-type]
        HybridClient(device=device, cloud=url, split=split) as client,
    ):
        answer = await client.generate(LONG, max_tokens=8, refine=0.25)
    wish = service.asked[0].refine
    assert wish is not None
    assert answer.report.reread is ("reread" in offers)
    return wish


@pytest.mark.parametrize(
    ("reread", "fits", "asked"),
    [(None, True, False), (None, False, True), (True, True, True), (True, False, True), (False, False, False)],
)
async def test_when_the_cloud_is_asked_to(reread: bool | None, fits: bool, asked: bool) -> None:
    device = talkative(context_length=4_096 if fits else len(IDS) // 2, delay=per_token(0.001))
    wish = await asked_of(device, SplitSettings(reread=reread, pace=UNPACED))
    assert wish.reread is asked


async def test_a_service_that_does_not_offer_it_is_not_asked_to() -> None:
    wish = await asked_of(talkative(delay=per_token(0.001)), SplitSettings(reread=True, pace=UNPACED), offers=())
    assert wish.reread is False


async def answered(serve, device: ScriptedEngine, split: SplitSettings) -> tuple[Answer, list[int]]:
    """The answer, and what the cloud's engine read the second time."""
    running = serve(refinery=scoring(), linger_ms=5_000, prefix_cache="off")
    async with HybridClient(device=device, cloud=running.url, split=split) as client:
        answer = await client.generate(LONG, max_tokens=24, refine=0.25)
    await running.emptied()
    fed = [token for chunks in running.engine.passes for chunk in chunks for token in chunk.tokens]
    assert fed[: len(IDS)] == list(IDS)
    kept = round(answer.report.prompt_kept * len(IDS))
    return answer, fed[len(IDS) : len(IDS) + kept]


@pytest.mark.parametrize("grant", [1, 6, 24])
async def test_where_a_prompt_is_too_long_both_go_on_from_the_same_part(serve, grant: int) -> None:
    """As if one engine had been asked with that part alone, wherever the answer changes hands."""
    device = talkative(context_length=len(IDS) // 2, delay=per_token(0.0005))
    answer, kept = await answered(serve, device, SplitSettings(grant=grant, max_grant=grant, pace=UNPACED))
    report = answer.report
    assert report.reread
    assert (report.cloud_tokens, report.device_tokens) == (grant, 24 - grant)
    assert len(kept) < 0.3 * len(IDS)
    assert answer.token_ids == said_to(kept, 24)


async def test_a_grant_that_grows_goes_on_from_the_same_part(serve) -> None:
    """The device takes longer than the grant lasts."""
    device = talkative(context_length=len(IDS) // 2, delay=per_token(0.01))
    split = SplitSettings(grant=2, max_grant=24, pace=PaceSettings(mode="fixed", pace=0.01))
    answer, kept = await answered(serve, device, split)
    assert answer.report.cloud_tokens > 2
    assert answer.token_ids == said_to(kept, 24)
