"""Execution providers: those asked for or an error that says why not, and what is compiled is compiled once."""

from __future__ import annotations

from pathlib import Path

import onnxruntime as ort
import pytest

from model_runtime.errors import EngineUnavailableError
from model_runtime.onnx import providers
from model_runtime.onnx.compiled import CompiledGraph, compiled_graph
from model_runtime.onnx.files import find_model
from model_runtime.onnx.session import create_session


def test_what_a_session_can_have_is_usable() -> None:
    names = [each.name for each in providers.usable()]
    assert providers.CPU in names
    assert names == list(dict.fromkeys(names))


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ((), "name at least one"),
        (("NoSuchProvider",), "NoSuchProvider is not available"),
        ((providers.OPENVINO,), r"pd-device\[openvino\]|built into|finds no device"),
    ],
)
def test_refused_with_what_to_do(asked: tuple[str, ...], message: str) -> None:
    if any(each.name in asked for each in providers.usable()):
        pytest.skip(f"{asked} is here")
    with pytest.raises(EngineUnavailableError, match=message):
        providers.check(asked, allow_cpu_fallback=True)


def test_nodes_that_would_fall_to_the_cpu_are_named(tiny_model) -> None:
    files = find_model(tiny_model("llama") / "model.onnx")
    # A provider that takes no node of any decoder.
    only = {"providers": ("AzureExecutionProvider",), "threads": 1, "cancellation": None}
    if "AzureExecutionProvider" not in ort.get_available_providers():
        pytest.skip("this onnxruntime has no provider that takes no node")
    with pytest.raises(EngineUnavailableError, match=r"\d+ nodes, \w+ .*allow_cpu_fallback=True"):
        create_session(files, allow_cpu_fallback=False, **only)
    session = create_session(files, allow_cpu_fallback=True, **only)
    assert list(session.assignment) == [providers.CPU]
    assert any(node.startswith("Softmax") for node in session.assignment[providers.CPU])


def test_a_compiled_graph_appears_whole_or_not_at_all(tiny_model, tmp_path: Path) -> None:
    files = find_model(tiny_model("llama") / "model.fixed.onnx")
    kept = compiled_graph(files, (providers.QNN,), {providers.QNN: {"a": "b"}}, tmp_path) if _has_qnn() else None
    kept = kept or CompiledGraph(tmp_path / "decoder-0")
    with pytest.raises(RuntimeError), kept.written_by(ort.SessionOptions()):
        raise RuntimeError("the compiler fails")
    assert list(tmp_path.iterdir()) == []
    options = ort.SessionOptions()
    with kept.written_by(options):
        written = Path(options.get_session_config_entry("ep.context_file_path"))
        written.write_bytes(b"compiled")
    assert kept.path.read_bytes() == b"compiled"
    assert [each.name for each in tmp_path.iterdir()] == [kept.folder.name]
    kept.forget()
    assert not kept.folder.exists()


def test_what_is_compiled_depends_on_graph_and_options(tiny_model, tmp_path: Path) -> None:
    if not _has_qnn():
        pytest.skip("onnxruntime-qnn is not installed: pip install 'pd-device[qnn]'")
    folders = set()
    for name, options in (("model.onnx", {}), ("model.fixed.onnx", {}), ("model.fixed.onnx", {"soc_model": "69"})):
        kept = compiled_graph(
            find_model(tiny_model("llama") / name), (providers.QNN,), {providers.QNN: options}, tmp_path
        )
        assert kept is not None
        folders.add(kept.folder)
    assert len(folders) == 3
    files = find_model(tiny_model("llama") / "model.onnx")
    assert compiled_graph(files, (providers.CPU,), {providers.CPU: {}}, tmp_path) is None


def _has_qnn() -> bool:
    import importlib.util

    return importlib.util.find_spec("onnxruntime_qnn") is not None
