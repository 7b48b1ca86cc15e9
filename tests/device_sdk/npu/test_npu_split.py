"""The bundled models in a real split whose device is an NPU's execution provider (Qualcomm's HTP is emulated)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from demos.side_by_side.cloud_process import CloudProcess, CloudSettings
from device_sdk import HandOver, HybridClient, PaceSettings, SplitSettings, Timeouts
from device_sdk.report import Source
from model_runtime.emulated import EmulatedEngine
from model_runtime.errors import EngineUnavailableError
from model_runtime.loading import load_engine
from model_runtime.onnx.files import find_model
from model_runtime.onnx.providers import QNN
from model_runtime.onnx.session import create_session
from model_runtime.profiles import HardwareProfile
from tests.device_sdk.npu.conftest import ANSWER_TOKENS, MODELS, said

GRANT = 4
#: A provider that is faster would have read the prompt before the cloud says anything.
SLOW = HardwareProfile(
    name="slow", title="A slow device", source="made up", prefill_tokens_per_s=((1, 400.0),), decode_ms=((1, 30.0),)
)
# An emulator on a busy machine takes its time.
PATIENT = Timeouts(load=1200, device_pass=600, first_token=300, idle=300)


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[str]:
    async with CloudProcess(CloudSettings(str(MODELS / "cloud" / "model.onnx"), tmp_path / "cloud.log")) as process:
        yield f"ws://127.0.0.1:{process.port}"


@pytest.mark.timeout(2400)
async def test_the_cloud_begins_and_the_npu_finishes_with_the_right_answer(
    cloud: str, provider: str, bundle: Path, questions: list
) -> None:
    split = SplitSettings(grant=GRANT, max_grant=GRANT, keep_ratio=None, pace=PaceSettings(mode="off"))

    def device(**options: Any) -> EmulatedEngine:
        return EmulatedEngine(load_engine(bundle, providers=(provider,), threads=1, **options), SLOW)

    handed_over = []
    async with HybridClient(device=device, cloud=cloud, split=split, timeouts=PATIENT) as client:
        case = questions[0]
        async for event in client.stream(case.messages, max_tokens=ANSWER_TOKENS):
            if isinstance(event, HandOver):
                handed_over.append(event.index)
            answer = getattr(event, "answer", None)
    assert answer is not None
    report = answer.report
    print(f"\n{provider}: {answer.text!r}, {report.spans}, agreement {report.agreement}, {report.notices}")  # noqa: T201
    assert handed_over == [GRANT]
    assert [span.source for span in report.spans] == [Source.CLOUD, Source.DEVICE]
    assert answer.text == case.answer


@pytest.mark.timeout(2400)
def test_every_node_runs_where_it_is_asked_to_and_answers_are_those_of_the_cpu(
    provider: str, bundle: Path, questions: list
) -> None:
    cases = questions[:2]
    with load_engine(bundle, threads=1) as cpu:
        on_cpu = [said(cpu, case) for case in cases]
    decoder = find_model(bundle / "decoder.1.onnx")
    # Not the compiled form, which is one node.
    session = create_session(decoder, providers=(provider,), threads=1, allow_cpu_fallback=False, cancellation=None)
    nodes = {name: len(found) for name, found in session.assignment.items()}
    with load_engine(bundle, providers=(provider,), threads=1) as npu:
        assert provider in npu.info.details["nodes"]
        on_npu = [said(npu, case) for case in cases]
    right = {
        name: sum(text == case.answer for text, case in zip(texts, cases, strict=True))
        for name, texts in (("CPU", on_cpu), (provider, on_npu))
    }
    print(f"\nnodes: {nodes}; exact answers of {len(cases)}: {right}")  # noqa: T201 - what is to be seen
    assert list(nodes) == [provider]
    assert right[provider] >= right["CPU"] - 1


@pytest.mark.timeout(600)
def test_a_graph_that_was_not_made_for_it_is_refused_and_its_nodes_are_named(provider: str) -> None:
    if provider != QNN:
        pytest.skip(f"{provider} takes dynamic shapes too")
    with pytest.raises(EngineUnavailableError, match=r"\d+ nodes, Gather embedded, .*export-npu.*allow_cpu_fallback"):
        load_engine(MODELS / "device" / "model.onnx", providers=(provider,), threads=1)
