"""A split over real engines: the same weights on both sides give one engine's own answer, within an engine and across.

Across engines the logits differ a little (docs/architecture.md says how much), so a token can differ where two
candidates are closer than that; with these weights, seeds and prompts none are.
"""

from __future__ import annotations

import pytest

from device_sdk import HybridClient, Mode, PaceSettings, SamplingParams, SplitSettings
from device_sdk.report import Source
from model_runtime.emulated import EmulatedEngine
from model_runtime.loading import load_engine
from model_runtime.profiles import HardwareProfile

FILES = {"onnx": "model.onnx", "onnx fixed": "model.fixed.onnx", "llama": "model.gguf"}
QUESTION = "Which gate was locked? 東京"


@pytest.fixture
def engine(tiny_model):
    """`engine("onnx")`: the tiny model on that engine."""
    engines = []

    def load(name: str):
        engines.append(load_engine(tiny_model("qwen2") / FILES[name]))
        return engines[-1]

    yield load
    for one in engines:
        one.shutdown()


def slow(engine):
    """A phone that needs a moment for the prompt, so that the cloud is first."""
    profile = HardwareProfile(
        name="slow-phone",
        title="A phone made up for this test",
        source="nowhere",
        prefill_tokens_per_s=((1, 60.0),),
        decode_ms=((1, 2.0),),
    )
    return EmulatedEngine(engine, profile)


@pytest.mark.parametrize(
    ("cloud", "device"),
    [("onnx", "onnx"), ("llama", "llama"), ("llama", "onnx"), ("onnx", "llama"), ("llama", "onnx fixed")],
)
@pytest.mark.parametrize(
    "params", [SamplingParams(), SamplingParams(temperature=0.8, seed=7)], ids=["greedy", "sampled"]
)
async def test_the_split_is_one_answer(serve, engine, cloud: str, device: str, params: SamplingParams) -> None:
    running = serve(engine(cloud))
    pace = PaceSettings(mode="off")
    async with HybridClient(device=slow(engine(device)), cloud=running.url) as client:
        alone = await client.generate(
            QUESTION, sampling=params, max_tokens=40, mode=Mode.ONLY_ON_DEVICE, split=SplitSettings(pace=pace)
        )
        begun_in_cloud = 0
        for grant in (1, 9, 25):
            split = SplitSettings(grant=grant, max_grant=grant, pace=pace)
            answer = await client.generate(QUESTION, sampling=params, max_tokens=40, split=split)
            assert answer.token_ids == alone.token_ids
            assert answer.report.finish_reason == alone.report.finish_reason
            assert answer.report.agreement in (1.0, None)
            begun_in_cloud += answer.report.spans[0].source is Source.CLOUD
        assert begun_in_cloud > 0
        in_cloud = await client.generate(QUESTION, sampling=params, max_tokens=40, mode=Mode.ONLY_IN_CLOUD)
    assert in_cloud.token_ids == alone.token_ids
