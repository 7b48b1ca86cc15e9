"""One way in for every model and engine: which engine, progress, cancellation, time limits, what errors say."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from model_runtime.core import Cancellation, Chunk
from model_runtime.errors import LoadCancelled, LoadTimeoutError, ModelFormatError, ModelNotFoundError
from model_runtime.loading import LoadProgress, load_engine
from model_runtime.onnx.engine import OnnxEngine

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def model(tiny_model: Callable[[str], Path]) -> Path:
    return tiny_model("llama")


def test_a_folder_and_a_file_of_onnx(model: Path, tmp_path: Path) -> None:
    seen: list[LoadProgress] = []
    with load_engine(model / "model.onnx", max_sequences=3, context_length=64, progress=seen.append) as engine:
        assert (engine.info.engine, engine.info.max_sequences, engine.info.context_length) == ("onnxruntime", 3, 64)
        [result] = engine.forward([Chunk(engine.open(), [1, 2, 3])])
        assert result.logits.shape == (1, engine.info.vocabulary_size)
    assert seen == [LoadProgress("load", 0.0), LoadProgress("load", 1.0)]
    for file in model.iterdir():
        if file.name not in ("model.gguf", "model.fixed.onnx"):
            (tmp_path / file.name).write_bytes(file.read_bytes())
    with load_engine(str(tmp_path)) as engine:
        assert engine.info.engine == "onnxruntime"


def test_gguf_by_file_and_by_folder(model: Path, tmp_path: Path) -> None:
    pytest.importorskip("llama_cpp", reason="needs llama-cpp-python")
    seen: list[LoadProgress] = []
    with load_engine(model / "model.gguf", context_length=64, max_sequences=2, progress=seen.append) as engine:
        assert engine.info.engine.startswith("llama")
        assert (engine.info.context_length, engine.info.max_sequences) == (64, 2)
    fractions = [progress.fraction for progress in seen]
    assert fractions == sorted(fractions)
    assert (fractions[0], fractions[-1]) == (0.0, 1.0)
    (tmp_path / "only.gguf").write_bytes((model / "model.gguf").read_bytes())
    with load_engine(tmp_path, context_length=64, max_sequences=2) as engine:
        assert engine.info.engine.startswith("llama")


def test_a_folder_with_both_kinds_goes_to_the_engine_that_is_always_installed(model: Path) -> None:
    with load_engine(model) as engine:
        assert engine.info.engine == "onnxruntime"
    with load_engine(model, engine="llama", context_length=64) as engine:
        assert engine.info.engine.startswith("llama")


def test_a_folder_with_several_gguf_files_asks_which(tmp_path: Path) -> None:
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / name).write_bytes(b"GGUF")
    with pytest.raises(ModelNotFoundError, match=r"found: a\.gguf, b\.gguf"):
        load_engine(tmp_path)


def test_what_is_not_there_or_no_model_is_said(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"hf://owner/name"):
        load_engine(tmp_path / "missing")
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(ModelFormatError, match=r"neither an \.onnx nor a \.gguf"):
        load_engine(tmp_path / "model.safetensors")
    with pytest.raises(ModelNotFoundError, match=r"no \.onnx file"):
        load_engine(tmp_path)


def test_a_cancelled_load_is_not_begun(model: Path) -> None:
    cancellation = Cancellation()
    cancellation.cancel()
    with pytest.raises(LoadCancelled):
        load_engine(model / "model.onnx", cancellation=cancellation)


def _load_until_cancelled(path: Path, *, cancellation: Cancellation, **_: object) -> OnnxEngine:
    """Stands for a load that takes for ever but keeps the contract: LoadCancelled soon after `cancellation`."""
    assert cancellation.wait(30)
    raise LoadCancelled(f"the load of {path} was cancelled by its caller")


def test_a_time_limit_ends_the_load(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OnnxEngine, "load", _load_until_cancelled)
    with pytest.raises(LoadTimeoutError, match=r"within 0\.05 s"):
        load_engine(model / "model.onnx", timeout_s=0.05)


def test_the_callers_cancellation_ends_the_load(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OnnxEngine, "load", _load_until_cancelled)
    cancellation = Cancellation()
    timer = threading.Timer(0.05, cancellation.cancel)
    timer.start()
    with pytest.raises(LoadCancelled):
        load_engine(model / "model.onnx", cancellation=cancellation, timeout_s=30)
    timer.join()


def test_a_load_in_time_leaves_no_timer_behind(model: Path) -> None:
    cancellation = Cancellation()
    before = threading.active_count()
    load_engine(model / "model.onnx", timeout_s=3600, cancellation=cancellation, threads=1).shutdown()
    for _ in range(100):
        if threading.active_count() <= before:
            break
        time.sleep(0.02)
    assert threading.active_count() <= before
    cancellation.cancel()  # nothing of the load listens any more


def test_importing_the_package_imports_no_engine() -> None:
    heavy = ("onnxruntime", "onnx", "llama_cpp", "tokenizers", "huggingface_hub", "jinja2")
    code = f"import sys, model_runtime; sys.exit(','.join(set(sys.modules) & set({heavy!r})) or 0)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=Path.cwd())
    assert result.returncode == 0, result.stderr
