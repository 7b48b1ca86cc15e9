"""What the settings name, loaded: with the taps that refinement needs, and without where it needs none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cloud_service import loading
from cloud_service.refinement.calibration import CalibrationError
from cloud_service.refinement.factory import RefinementError
from cloud_service.settings import Settings
from model_runtime.core import AttentionTap, Cancellation, Chunk
from model_runtime.errors import EngineFailedError, UnsupportedError
from model_runtime.testing import ScriptedEngine

DEVICE = Path(__file__).parents[2] / "demos/models/device"


@pytest.fixture(params=["model.onnx", "model.gguf"])
def model(request: pytest.FixtureRequest) -> str:
    if request.param.endswith(".gguf"):
        pytest.importorskip("llama_cpp")
    return str(DEVICE / request.param)


def test_either_engine_shows_the_attention_that_scorers_need(model: str) -> None:
    settings = Settings(
        model=model, refine="answer-attention", threads=1, max_sequences=1, kept_sequences=0, context_length=256
    )
    engine, refinery = loading.load(settings, Cancellation())
    with engine:
        needs = refinery.needs
        assert needs.prompt_rows
        assert needs.answer_rows
        sequence = engine.open()
        tap = AttentionTap(needs.layers, 4)
        (result,) = engine.forward([Chunk(sequence, engine.tokenizer.encode("The crane is red."), tap=tap)])
        assert result.attention is not None
        assert result.attention.shape[:3] == (len(needs.layers), engine.info.heads, 4)
    refinery.close()


def test_who_wants_no_refinement_pays_for_no_tap(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def load_engine(model: str, **options: Any) -> ScriptedEngine:
        asked.append(options["tap_layers"])
        return ScriptedEngine()

    monkeypatch.setattr(loading, "load_engine", load_engine)
    for choice in ("off", "bm25", "auto"):
        engine, refinery = loading.load(Settings(model="m", refine=choice), Cancellation())
        assert bool(engine.passes) == (choice == "auto"), "warmed up before the first prompt comes"  # type: ignore[attr-defined]
        refinery.close()
    assert asked == [(), (), "all"]


def test_a_model_that_cannot_be_tapped_is_served_without(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def load_engine(model: str, **options: Any) -> ScriptedEngine:
        asked.append(options["tap_layers"])
        if options["tap_layers"]:
            raise UnsupportedError("sliding windows")
        return ScriptedEngine()

    monkeypatch.setattr(loading, "load_engine", load_engine)
    loading.load(Settings(model="m"), Cancellation())[1].close()
    assert asked == ["all", ()]


@pytest.mark.parametrize(
    ("options", "error"),
    [({"refine": "model"}, RefinementError), ({"refine_calibration": Path("none.json")}, CalibrationError)],
)
def test_what_cannot_be_had_frees_the_engine(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], error: type[Exception]
) -> None:
    engine = ScriptedEngine()
    monkeypatch.setattr(loading, "load_engine", lambda model, **_: engine)
    with pytest.raises(error):
        loading.load(Settings(model="m", **options), Cancellation())
    with pytest.raises(EngineFailedError):
        engine.open()
