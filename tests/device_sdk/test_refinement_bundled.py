"""A split with a refined prompt over the bundled models, against a real `pd-cloud serve` process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from demos.side_by_side.cloud_process import CloudProcess, CloudSettings
from demos.training.logbook import held_out
from device_sdk import HybridClient, PaceSettings, SplitSettings
from model_runtime.core import Chunk
from model_runtime.emulated import EmulatedEngine
from model_runtime.loading import load_engine
from model_runtime.profiles import HardwareProfile

MODELS = Path(__file__).parents[2] / "demos" / "models"
SPLIT = SplitSettings(pace=PaceSettings(mode="off"), grant=8, refine_from=100)


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[str]:
    async with CloudProcess(CloudSettings(str(MODELS / "cloud" / "model.onnx"), tmp_path / "cloud.log")) as process:
        yield f"ws://127.0.0.1:{process.port}"


def phone(name: str, context: int | None = None) -> EmulatedEngine:
    """So slow that it has read little when the refinement comes, however busy this machine is."""
    profile = HardwareProfile(
        name="slow-phone",
        title="A phone made up for this test",
        source="nowhere",
        prefill_tokens_per_s=((1, 60.0),),
        decode_ms=((1, 5.0),),
    )
    return EmulatedEngine(load_engine(MODELS / name / "model.onnx", threads=1, context_length=context), profile)


@pytest.mark.parametrize("device", ["device", "device-alt"], ids=["by tokens", "by characters"])
async def test_a_lookup_reads_part_of_the_log_and_its_question(cloud: str, device: str) -> None:
    (case,) = held_out("lookup", 500, 1, 0)
    with phone(device) as engine:
        async with HybridClient(device=engine, cloud=cloud, split=SPLIT) as client:
            answer = await client.generate(case.messages, max_tokens=24, refine=0.25)
            whole = await client.generate(case.messages, max_tokens=2, refine=False)
    report = answer.report
    assert not [notice for notice in report.notices if notice.startswith("refinement_ignored")]
    assert report.guard is not None
    assert report.refinement_stages >= 1
    assert report.refinement_ms is not None
    if report.guard.decision == "passed":
        assert 0.1 < report.prompt_kept < 0.9
    else:  # The guard may keep all: the models are small, and scores of one question can be flat.
        assert report.prompt_kept == 1.0
    assert (whole.report.prompt_kept, whole.report.refinement_stages) == (1.0, 0)


def said_to(tokens: list[int], count: int) -> list[int]:
    """What the model says to these tokens alone, greedily, up to its end."""
    said: list[int] = []
    with load_engine(MODELS / "cloud" / "model.onnx", threads=1) as engine:
        sequence = engine.open()
        while len(said) < count:
            [result] = engine.forward([Chunk(sequence, tokens)])
            tokens = [int(result.logits[-1].argmax())]
            if tokens[0] in engine.tokenizer.eos_ids:
                break
            said += tokens
    return said


async def test_the_same_model_on_both_sides_says_what_it_says_to_the_part_kept(cloud: str) -> None:
    """Of a prompt longer than the device's context, wherever the answer changes hands."""
    split = SplitSettings(pace=PaceSettings(mode="off"), grant=5, max_grant=5)
    seen = 0
    with phone("cloud", 640) as engine:
        async with HybridClient(device=engine, cloud=cloud, split=split) as client:
            for case in held_out("lookup", 1_000, 3, 1):
                answer = await client.generate(case.messages, max_tokens=48)
                report = answer.report
                if not report.reread:
                    continue  # the guard may keep all of one
                seen += 1
                assert report.prompt_kept * report.prompt_tokens <= 640
                content = case.messages[-1]["content"]
                kept = "".join(content[span.start : span.stop] for span in report.prompt_read)
                tokens = engine.tokenizer.render_chat([{"role": "user", "content": kept}])
                assert list(answer.token_ids) == said_to(tokens, 48)
                assert (report.cloud_tokens, report.device_tokens > 0) == (5, True)
    assert seen
