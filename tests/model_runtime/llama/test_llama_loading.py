"""Loading: what is told about a model, progress and cancellation, and every file that cannot be loaded."""

from __future__ import annotations

import logging
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from model_runtime.core import Cancellation, Chunk
from model_runtime.errors import (
    BadInputError,
    EngineFailedError,
    EngineUnavailableError,
    LoadCancelled,
    ModelFormatError,
    ModelNotFoundError,
)
from model_runtime.llama import LlamaEngine

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.model_runtime.llama.conftest import Kind


def test_info_says_what_was_loaded(gguf_file: Callable[[Kind], Path]) -> None:
    with LlamaEngine.load(gguf_file("gpt2"), context_length=512, max_sequences=3, threads=1) as engine:
        info = engine.info
        assert (info.engine, info.model, info.architecture) == ("llama.cpp", "gpt2", "gpt2")
        assert (info.context_length, info.layers, info.heads, info.max_sequences) == (512, 3, 4, 3)
        assert info.vocabulary_size == 260
        assert info.hardware.startswith("llama.cpp CPU")
        assert info.details["quantization"] == "all F32"
        assert info.details["kv_tokens"] == str(3 * 512)


def test_a_context_is_never_longer_than_trained(gguf_file: Callable[[Kind], Path]) -> None:
    with LlamaEngine.load(gguf_file("gpt2"), context_length=1_000_000, max_sequences=1, threads=1) as engine:
        assert engine.info.context_length == 2048


def test_fingerprints_tell_models_apart_and_not_loads(gguf_file: Callable[[Kind], Path]) -> None:
    def load(kind: Kind, context: int) -> tuple[str, str]:
        with LlamaEngine.load(gguf_file(kind), context_length=context, max_sequences=1, threads=1) as engine:
            return engine.info.model_fingerprint, engine.info.tokenizer_fingerprint

    assert load("llama", 64) == load("llama", 128)
    assert load("llama", 64)[0] != load("qwen2", 64)[0]
    assert load("llama", 64)[1] == load("qwen2", 64)[1]  # One tokenizer, two models.


def test_a_changed_weight_changes_the_fingerprint(gguf_file: Callable[[Kind], Path], tmp_path: Path) -> None:
    data = bytearray(gguf_file("llama").read_bytes())
    data[-50_000] ^= 1
    changed = tmp_path / "changed.gguf"
    changed.write_bytes(data)
    fingerprints = set()
    for path in (gguf_file("llama"), changed):
        with LlamaEngine.load(path, context_length=64, max_sequences=1, threads=1) as engine:
            fingerprints.add(engine.info.model_fingerprint)
    assert len(fingerprints) == 2


def test_progress_goes_from_0_to_1(gguf_file: Callable[[Kind], Path]) -> None:
    seen: list[float] = []
    LlamaEngine.load(gguf_file("llama"), context_length=64, threads=1, progress=seen.append).shutdown()
    assert seen == sorted(seen)
    assert seen[0] == 0.0
    assert seen[-1] == 1.0


def test_a_load_can_be_cancelled_at_any_report(gguf_file: Callable[[Kind], Path]) -> None:
    cancellation = Cancellation()

    def cancel(fraction: float) -> None:
        if fraction > 0.3:
            cancellation.cancel()

    with pytest.raises(LoadCancelled):
        LlamaEngine.load(gguf_file("llama"), threads=1, cancellation=cancellation, progress=cancel)
    with pytest.raises(LoadCancelled):
        LlamaEngine.load(gguf_file("llama"), threads=1, cancellation=cancellation)


def test_what_progress_raises_is_the_callers(gguf_file: Callable[[Kind], Path]) -> None:
    def fail(fraction: float) -> None:
        raise KeyError(fraction)

    with pytest.raises(KeyError):
        LlamaEngine.load(gguf_file("llama"), threads=1, progress=fail)


def test_no_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="there is no file"):
        LlamaEngine.load(tmp_path / "absent.gguf")
    with pytest.raises(ModelNotFoundError, match="is not a file"):
        LlamaEngine.load(tmp_path)


def test_no_gguf(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"<html>404</html>")
    with pytest.raises(ModelFormatError, match="begins with b'<htm'"):
        LlamaEngine.load(path)


@pytest.mark.parametrize("kept", [5, 100, 5_000, -1_000])
def test_a_file_cut_short(gguf_file: Callable[[Kind], Path], tmp_path: Path, kept: int) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(gguf_file("llama").read_bytes()[:kept])
    with pytest.raises(ModelFormatError) as caught:
        LlamaEngine.load(path, threads=1)
    assert "no reason" not in str(caught.value)


def test_an_unknown_architecture_is_named(tmp_path: Path) -> None:
    import gguf

    path = tmp_path / "model.gguf"
    writer = gguf.GGUFWriter(str(path), "frobnicator")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(ModelFormatError, match="frobnicator"):
        LlamaEngine.load(path, threads=1)


def test_a_token_twice_is_refused_and_does_not_end_the_process(
    gguf_file: Callable[[Kind], Path], tmp_path: Path
) -> None:
    data = gguf_file("llama").read_bytes()
    assert data.count(b"<|pad|>") == 1
    path = tmp_path / "model.gguf"
    path.write_bytes(data.replace(b"<|pad|>", b"the\0\0\0\0"))
    with pytest.raises(ModelFormatError, match="b'the' twice"):
        LlamaEngine.load(path, threads=1)


@pytest.mark.parametrize(
    "arguments",
    [
        {"context_length": 0},
        {"max_sequences": 0},
        {"threads": -1},
        {"kv_tokens": 0},
        {"max_sequences": 300},
        {"kv_precision": "q8"},
    ],
)
def test_arguments_out_of_range(gguf_file: Callable[[Kind], Path], arguments: dict[str, Any]) -> None:
    with pytest.raises(BadInputError, match=next(iter(arguments))):
        LlamaEngine.load(gguf_file("llama"), **arguments)


def test_a_gpu_is_never_replaced_silently(gguf_file: Callable[[Kind], Path]) -> None:
    from llama_cpp import llama_cpp

    if llama_cpp.llama_supports_gpu_offload():
        pytest.skip("this llama.cpp has a GPU")
    with pytest.raises(EngineUnavailableError, match="CPU only"):
        LlamaEngine.load(gguf_file("llama"), gpu_layers=1)


def test_after_shutdown_nothing_works_and_nothing_crashes(gguf_file: Callable[[Kind], Path]) -> None:
    engine = LlamaEngine.load(gguf_file("llama"), context_length=64, threads=1)
    sequence = engine.open()
    engine.shutdown()
    engine.shutdown()
    for call in (
        engine.open,
        lambda: engine.forward([Chunk(sequence, [1])]),
        lambda: engine.export_kv(sequence),
        lambda: engine.close(sequence),
        lambda: engine.tokenizer.encode("text"),
        lambda: engine.tokenizer.render_chat([{"role": "user", "content": "hello"}]),
    ):
        with pytest.raises(EngineFailedError):
            call()
    assert engine.tokenizer.token_bytes(0) == b"!"


def test_without_the_package_the_error_says_what_to_install(pytestconfig: pytest.Config) -> None:
    script = (
        "import sys, pathlib; sys.modules['llama_cpp'] = None\n"
        "from model_runtime.llama import LlamaEngine\n"
        "from model_runtime.errors import EngineUnavailableError\n"
        "try: LlamaEngine.load(pathlib.Path('model.gguf'))\n"
        "except EngineUnavailableError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=pytestconfig.rootpath
    )
    assert "pip install pd-device[llama]" in done.stdout


def test_llama_cpp_writes_nothing_to_the_terminal(
    gguf_file: Callable[[Kind], Path], pytestconfig: pytest.Config
) -> None:
    script = (
        "import sys, pathlib\n"
        "from model_runtime.core import Chunk\n"
        "from model_runtime.llama import LlamaEngine\n"
        "with LlamaEngine.load(pathlib.Path(sys.argv[1]), context_length=64, threads=1) as engine:\n"
        "    engine.forward([Chunk(engine.open(), [1, 2, 3])])\n"
        "try: LlamaEngine.load(pathlib.Path(sys.argv[1] + '.damaged'))\n"
        "except Exception: pass"
    )
    path = gguf_file("qwen2")
    path.with_suffix(".gguf.damaged").write_bytes(path.read_bytes()[:8_000])
    command = [sys.executable, "-c", script, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=pytestconfig.rootpath)
    assert (done.stdout, done.stderr) == ("", "")


def test_its_log_goes_where_the_application_sends_it(
    gguf_file: Callable[[Kind], Path], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, logger="model_runtime.llama"):
        LlamaEngine.load(gguf_file("llama"), context_length=64, threads=1).shutdown()
    assert any("general.architecture" in record.message for record in caplog.records)
    assert not any(record.message.endswith("\n") for record in caplog.records)
