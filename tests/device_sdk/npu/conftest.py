"""The bundled device model as an NPU gets it, and the execution providers that tests ask for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from demos.training.logbook import held_out
from model_runtime.errors import EngineUnavailableError
from model_runtime.export.accuracy import greedy
from model_runtime.export.npu import Plan, export_npu
from model_runtime.loading import load_engine
from model_runtime.onnx.providers import OPENVINO, QNN, check
from model_runtime.tokenizers import load_tokenizer

MODELS = Path(__file__).parents[3] / "demos" / "models"
PROVIDERS = {"qnn": QNN, "openvino": OPENVINO}
ANSWER_TOKENS = 24


@pytest.fixture(scope="session", params=PROVIDERS)
def provider(request: pytest.FixtureRequest) -> str:
    """An execution provider that was asked for; skips where it was not, or cannot be had."""
    if request.param not in os.environ.get("PD_CONTRACT", "").split():
        pytest.skip(f"slow, or not installed everywhere: make test-{request.param} runs it")
    name = PROVIDERS[request.param]
    try:
        check([name], allow_cpu_fallback=False)
    except EngineUnavailableError as error:
        pytest.skip(str(error))
    return name


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled device model in passes of 64 and 1, with 8-bit weights and 16-bit activations."""
    tokenizer = load_tokenizer(MODELS / "device")
    prompts = [tokenizer.render_chat(case.messages) for case in held_out("lookup", 200, 4, 17)]
    target = tmp_path_factory.mktemp("npu") / "device"
    export_npu(MODELS / "device", target, Plan(lengths=(64, 1), slots=320), prompts, lambda _: None)
    return target


@pytest.fixture(scope="session")
def questions() -> list:
    """Short held-out lookups, those first that the model answers exactly on the CPU, unquantized."""
    cases = list(held_out("lookup", 90, 6, 3))
    with load_engine(MODELS / "device" / "model.onnx", threads=1) as engine:
        right = [said(engine, case) == case.answer for case in cases]
    assert any(right), "the device model answers none of these: its training is at fault, not the NPU"
    return [case for _, case in sorted(zip(right, cases, strict=True), key=lambda pair: not pair[0])]


def said(engine, case) -> str:
    """The greedy answer's text."""
    tokens = greedy(engine, engine.tokenizer.render_chat(case.messages), ANSWER_TOKENS)
    return b"".join(map(engine.tokenizer.token_bytes, tokens)).decode()
