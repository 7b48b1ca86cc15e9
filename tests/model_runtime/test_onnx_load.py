"""Loading ONNX models: what is found where, and what the messages say when it cannot be used."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx
import pytest
from onnx import TensorProto, helper

from model_runtime.core import AttentionTap, Cancellation, Chunk
from model_runtime.errors import (
    BadInputError,
    EngineUnavailableError,
    LoadCancelled,
    ModelFormatError,
    ModelNotFoundError,
)
from model_runtime.onnx import OnnxEngine

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def folder(tiny_model: Callable[[str], Path], tmp_path: Path) -> Path:
    """A copy to change."""
    return Path(shutil.copytree(tiny_model("llama"), tmp_path / "tiny"))


def load(path: Path, **options: Any) -> OnnxEngine:
    return OnnxEngine.load(path, threads=1, **options)


def edit(path: Path, change: Callable[[onnx.ModelProto], None]) -> None:
    """Change a graph, its weights staying where they are."""
    model = onnx.load(str(path), load_external_data=False)
    change(model)
    path.write_bytes(model.SerializeToString())


def test_what_it_says_about_the_model(folder: Path) -> None:
    with load(folder) as engine:
        info = engine.info
    assert (info.engine, info.model, info.architecture) == ("onnxruntime", "tiny", "llama")
    assert (info.layers, info.heads, info.vocabulary_size, info.context_length) == (3, 4, 272, 160)
    assert info.hardware == "CPUExecutionProvider"
    assert info.details.pop("nodes").startswith("CPUExecutionProvider ")
    assert info.details == {
        "graph": "model.onnx",
        "kv": "float32",
        "logits": "as asked for",
        "threads": "1",
    }
    assert info.tokenizer_fingerprint == engine.tokenizer.fingerprint
    assert info.capabilities.chunk_length is None
    assert info.capabilities.attention_tap
    assert info.capabilities.batched


def test_a_fixed_shape_graph_says_its_chunk(folder: Path) -> None:
    with load(folder / "model.fixed.onnx") as engine:
        assert engine.info.capabilities.chunk_length == 12
        assert not engine.info.capabilities.batched
        assert engine.info.context_length == 160
        assert engine.info.details["logits"] == "of every position"


def test_context_and_sequences_as_asked(folder: Path) -> None:
    with load(folder, context_length=50, max_sequences=2) as engine:
        assert (engine.info.context_length, engine.info.max_sequences) == (50, 2)
    with load(folder, context_length=5000) as engine:
        assert engine.info.context_length == 160
    for wrong in ({"context_length": 0}, {"max_sequences": 0}, {"threads": -1}):
        with pytest.raises(BadInputError, match="at least 1"):
            OnnxEngine.load(folder, **wrong)


@pytest.mark.parametrize(
    ("place", "given"),
    [
        ("onnx/model.onnx", "."),
        ("onnx/model_quantized.onnx", "."),
        ("onnx/model_fp16.onnx", "onnx/model_fp16.onnx"),
        ("decoder.onnx", "."),
        ("decoder.onnx", "decoder.onnx"),
    ],
)
def test_where_hubs_put_the_graph(folder: Path, place: str, given: str) -> None:
    (folder / "model.fixed.onnx").unlink()
    (folder / "onnx").mkdir()
    (folder / "model.onnx").rename(folder / place)
    weights = (folder / place).parent / "model.safetensors"
    if not weights.exists():
        (folder / "model.safetensors").rename(weights)
    with load(folder / given) as engine:
        assert engine.info.details["graph"] == Path(place).name
        assert engine.info.model == "tiny"


def hub_cache(folder: Path, root: Path) -> Path:
    """As huggingface_hub keeps it: files by hash in one folder, links to them in another."""
    blobs, snapshot = root / "blobs", root / "snapshots" / "main"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    for number, file in enumerate(sorted(folder.iterdir())):
        file.rename(blobs / str(number))
        (snapshot / file.name).symlink_to(f"../../blobs/{number}")
    return snapshot


def test_a_hub_cache_of_links_loads_with_taps_and_stays_untouched(folder: Path, tmp_path: Path) -> None:
    snapshot = hub_cache(folder, tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with load(snapshot) as engine:
        [result] = engine.forward([Chunk(engine.open(), [1, 2, 3], tap=AttentionTap((1,), 2))])
    assert result.attention is not None
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(ModelNotFoundError, match=name):
        load(folder)


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="nowhere"):
        load(tmp_path / "nowhere")
    with pytest.raises(ModelNotFoundError, match=r"no \.onnx file"):
        load(tmp_path)
    (tmp_path / "model.bin").write_bytes(b"x")
    with pytest.raises(ModelFormatError, match=r"no \.onnx file"):
        load(tmp_path / "model.bin")


def test_several_graphs_and_none_of_a_known_name(folder: Path) -> None:
    (folder / "model.onnx").rename(folder / "a.onnx")
    with pytest.raises(ModelFormatError, match=r"a\.onnx, model\.fixed\.onnx"):
        load(folder)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_graph_cut_short(folder: Path, share: float) -> None:
    data = (folder / "model.onnx").read_bytes()
    (folder / "model.onnx").write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ModelFormatError, match=r"model\.onnx.*again"):
        load(folder)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
@pytest.mark.parametrize("linked", [False, True], ids=["beside", "linked"])
def test_weights_cut_short(folder: Path, tmp_path: Path, share: float, linked: bool) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[: int(weights.stat().st_size * share)])
    with pytest.raises(ModelFormatError, match=r"model\.(onnx|safetensors) (cannot be loaded|is empty)"):
        load(hub_cache(folder, tmp_path) if linked else folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "no JSON"),
        ("[]", "JSON object"),
        ('{"num_attention_heads": 4}', "model_type"),
        ('{"model_type": "llama", "num_attention_heads": "four"}', "num_attention_heads"),
        ('{"model_type": "llama"}', "num_attention_heads"),
        ('{"model_type": "llama", "num_attention_heads": 4}', "max_position_embeddings"),
    ],
)
def test_a_config_that_cannot_be_used(folder: Path, content: str, message: str) -> None:
    (folder / "config.json").write_text(content)
    with pytest.raises(ModelFormatError, match=message) as caught:
        load(folder)
    assert "config.json" in str(caught.value)


def test_the_decoder_of_a_model_of_several_modalities(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({"model_type": "seeing_llama", "text_config": config}))
    with load(folder) as engine:
        assert (engine.info.architecture, engine.info.context_length) == ("llama", 160)


def test_an_input_it_cannot_fill_is_named(folder: Path) -> None:
    extra = helper.make_tensor_value_info("use_cache_branch", TensorProto.BOOL, [1])
    edit(folder / "model.onnx", lambda model: model.graph.input.append(extra))
    with pytest.raises(ModelFormatError, match="use_cache_branch"):
        load(folder)


def test_a_graph_without_a_cache(folder: Path) -> None:
    def forget_outputs(model: onnx.ModelProto) -> None:
        del model.graph.output[1:]

    edit(folder / "model.onnx", forget_outputs)
    with pytest.raises(ModelFormatError, match=r"present\.0\.key"):
        load(folder)


def test_a_graph_half_fixed(folder: Path) -> None:
    def fix_the_chunk(model: onnx.ModelProto) -> None:
        for tensor in model.graph.input[:3:2]:
            tensor.type.tensor_type.shape.dim[1].dim_value = 12

    edit(folder / "model.onnx", fix_the_chunk)
    with pytest.raises(ModelFormatError, match="either both or none"):
        load(folder)


def test_a_fixed_graph_that_returns_the_past_too(folder: Path) -> None:
    def return_everything(model: onnx.ModelProto) -> None:
        for node in model.graph.node:
            for names in (node.input, node.output):
                swap = {"present.0.key": "new", "model.layers.0.self_attn.keys": "present.0.key"}
                names[:] = [swap.get(name, name) for name in names]
        model.graph.output[1].type.tensor_type.shape.dim[2].dim_value = 172

    edit(folder / "model.fixed.onnx", return_everything)
    with pytest.raises(ModelFormatError, match=r"present\.0\.key must hold the 12 positions"):
        load(folder / "model.fixed.onnx")


def test_providers_are_used_as_named_or_not_at_all(folder: Path) -> None:
    with pytest.raises(EngineUnavailableError, match=r"NoSuchProvider .* available here: .*CPUExecutionProvider"):
        load(folder, providers=("NoSuchProvider",))
    with pytest.raises(EngineUnavailableError, match="at least one"):
        load(folder, providers=())
    # This one comes with the package and runs none of these operators.
    with pytest.raises(EngineUnavailableError, match="fall back"):
        load(folder, providers=("AzureExecutionProvider",))
    with pytest.raises(EngineUnavailableError, match="allow_cpu_fallback"):
        load(folder, providers=("AzureExecutionProvider", "CPUExecutionProvider"))
    with load(folder, providers=("AzureExecutionProvider",), allow_cpu_fallback=True) as engine:
        engine.forward([Chunk(engine.open(), [1])])


def test_a_cancelled_load(folder: Path) -> None:
    cancellation = Cancellation()
    cancellation.cancel()
    with pytest.raises(LoadCancelled):
        load(folder, cancellation=cancellation)


def test_a_load_cancelled_while_it_runs(folder: Path) -> None:
    class CancelledOnceLoading(Cancellation):
        def on_cancel(self, callback: Callable[[], None]) -> Callable[[], None]:
            forget = super().on_cancel(callback)
            thread = threading.Thread(target=self.cancel)
            thread.start()
            thread.join()
            return forget

    with pytest.raises(LoadCancelled):
        load(folder, cancellation=CancelledOnceLoading())


def test_the_fingerprint_is_of_the_weights(folder: Path) -> None:
    with load(folder) as engine:
        fingerprint = engine.info.model_fingerprint
    with load(folder, max_sequences=1, context_length=20) as engine:
        assert engine.info.model_fingerprint == fingerprint
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "model.safetensors").write_bytes(data)
    with load(folder) as engine:
        assert engine.info.model_fingerprint != fingerprint
