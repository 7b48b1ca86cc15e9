"""The exporters on random weights of two architectures: one meaning in four files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest

from demos.training import export_gguf, export_hf, export_onnx
from demos.training.architecture import DecoderConfig, parameters, random_weights

if TYPE_CHECKING:
    from collections.abc import Callable

    Engine = Callable[[Path], Any]

CHUNK, SLOTS = 16, 96
QWEN2 = DecoderConfig(2560, 64, 2, 4, 2, 96, context=512)
CONFIGS = {
    "qwen2": QWEN2,
    "llama": replace(QWEN2, architecture="llama", rope_theta=1e4, norm_epsilon=1e-5),
    "llama untied": replace(QWEN2, architecture="llama", tied=False, kv_heads=4, layers=3),
}


@pytest.fixture(scope="module", params=CONFIGS)
def folder(request: pytest.FixtureRequest, models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = CONFIGS[request.param]
    target = tmp_path_factory.mktemp("random") / "model"
    export_hf.export(config, random_weights(config, 3), models / "device", target)
    config, weights = export_hf.load(target)
    export_onnx.export_dynamic(config, weights, target / "model.onnx")
    export_onnx.export_fixed(config, weights, target / "model.fixed.onnx", CHUNK, SLOTS)
    export_gguf.export(config, weights, target, target / "model.gguf")
    return target


@pytest.fixture(scope="module")
def ids() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 2500, 40)


def test_a_folder_loads_as_it_was_written(folder: Path) -> None:
    config, weights = export_hf.load(folder)
    assert config in CONFIGS.values()
    assert sum(values.size for values in weights.values()) == parameters(config)
    for name, values in random_weights(config, 3).items():
        np.testing.assert_array_equal(weights[name], values)


def test_a_prompt_in_chunks_equals_a_prompt_at_once(folder: Path, ids: np.ndarray, dynamic: Engine) -> None:
    whole, parts = dynamic(folder), dynamic(folder)
    expected = whole.forward(ids)
    found = np.concatenate([parts.forward(ids[:7]), parts.forward(ids[7:39]), parts.forward(ids[39:])])
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_the_fixed_graph_says_what_the_dynamic_one_says(
    folder: Path, ids: np.ndarray, dynamic: Engine, fixed: Engine
) -> None:
    expected = dynamic(folder).forward(ids)
    np.testing.assert_allclose(fixed(folder).forward(ids), expected, atol=2e-3)


def test_llama_cpp_says_what_onnx_says(folder: Path, ids: np.ndarray, dynamic: Engine, llama: Engine) -> None:
    expected = dynamic(folder).forward(ids)
    model = llama(folder)
    model.eval(ids.tolist())
    found = np.array(model.scores[: len(ids)])
    model.close()
    # Flash attention and fp16 keys in llama.cpp: close, against logits that spread over units.
    assert expected.std() > 1
    np.testing.assert_allclose(found, expected, atol=0.05)


def test_rows_of_a_batch_do_not_disturb_one_another(folder: Path, ids: np.ndarray, dynamic: Engine) -> None:
    """Two prompts of unequal length in one pass, the shorter padded on the left and masked."""
    model = dynamic(folder)
    short, long = ids[:9], ids[9:30]
    padding = len(long) - len(short)
    batch = np.stack([np.concatenate([np.zeros(padding, np.int64), short]), long])
    mask = np.ones_like(batch)
    mask[0, :padding] = 0
    positions = np.maximum(0, np.cumsum(mask, 1) - 1)
    logits = model.run(batch, mask, positions, model.empty(rows=2))[0]
    np.testing.assert_allclose(logits[0, padding:], dynamic(folder).forward(short), atol=1e-4)
    np.testing.assert_allclose(logits[1], dynamic(folder).forward(long), atol=1e-4)


def test_each_layer_has_one_softmax_in_layer_order(folder: Path) -> None:
    config, _ = export_hf.load(folder)
    for name in ("model.onnx", "model.fixed.onnx"):
        graph = onnx.load(str(folder / name), load_external_data=False).graph
        softmaxes = [node.name for node in graph.node if node.op_type == "Softmax"]
        assert softmaxes == [f"model.layers.{layer}.self_attn.attention" for layer in range(config.layers)]


def test_the_fixed_graph_has_no_dynamic_dimension(folder: Path) -> None:
    model = onnx.load(str(folder / "model.fixed.onnx"))
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    values = [*inferred.graph.input, *inferred.graph.output, *inferred.graph.value_info]
    assert len(inferred.graph.value_info) > 50
    for value in values:
        dims = value.type.tensor_type.shape.dim
        assert all(dim.HasField("dim_value") for dim in dims), value.name


def test_graphs_hold_no_weights_of_their_own(folder: Path) -> None:
    weights = (folder / "model.safetensors").stat().st_size
    graph = onnx.load(str(folder / "model.onnx"), load_external_data=False).graph
    own = sum(len(tensor.raw_data) for tensor in graph.initializer)
    assert own < 0.01 * weights


def test_a_graph_without_safetensors_beside_it_carries_its_weights(
    tmp_path: Path, ids: np.ndarray, dynamic: Engine
) -> None:
    config = replace(QWEN2, vocabulary=300)
    export_onnx.export_dynamic(config, random_weights(config, 1), tmp_path / "model.onnx")
    logits = dynamic(tmp_path).forward(ids % 300)
    assert logits.shape == (len(ids), 300)
    assert np.isfinite(logits).all()


def test_config_json_is_what_transformers_reads(folder: Path) -> None:
    settings = json.loads((folder / "config.json").read_text())
    assert settings["model_type"] in {"llama", "qwen2"}
    assert settings["eos_token_id"] == export_hf.special_ids(folder)[0]
    assert settings["torch_dtype"] == "float16"


@pytest.mark.parametrize("change", [{"heads": 5}, {"kv_heads": 3}, {"width": 36, "heads": 4, "kv_heads": 2}])
def test_impossible_shapes_are_refused(change: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="head"):
        replace(QWEN2, **change)
