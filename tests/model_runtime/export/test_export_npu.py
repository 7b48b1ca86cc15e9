"""`pd-models export-npu`: fixed shapes that say what the model says, quantized ones nearly, masks that are exact."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest

from model_runtime.core import Chunk, Logits
from model_runtime.errors import BadInputError, EngineUnavailableError, KVMismatchError, ModelFormatError
from model_runtime.export import cli
from model_runtime.export.accuracy import compare
from model_runtime.export.npu import Plan, export_npu
from model_runtime.export.surgery import halves
from model_runtime.onnx import OnnxEngine

SOME = [int(token) for token in np.random.default_rng(1).integers(0, 258, 40)]


def nothing(_: str) -> None:
    """Says nothing."""


def test_the_decoder_takes_numbers_only_and_has_no_open_size(tiny_model) -> None:
    cut = halves(tiny_model("qwen2") / "model.onnx", 4, 160)
    given = {value.name: value.type.tensor_type for value in cut.decoder.graph.input}
    assert {kind.elem_type for kind in given.values()} == {onnx.TensorProto.FLOAT}
    assert all(dim.dim_value for kind in given.values() for dim in kind.shape.dim)
    assert {value.name for value in cut.host.graph.output} == {name for name in given if not name.startswith("past")}
    kinds = {node.op_type for node in cut.decoder.graph.node}
    assert not kinds & {"Gather", "Cos", "Sin", "Cast", "Where", "Shape"}


@pytest.mark.parametrize("weights", [32, 8])
def test_what_is_masked_has_no_effect_at_all(tiny_bundle, weights: int) -> None:
    """Whatever lies in unused slots of the cache and in padding, not a bit of the logits changes."""
    with OnnxEngine.load(tiny_bundle("llama", weights), threads=1) as engine:
        clean, dirty = engine.open(), engine.open()
        # Leaves keys and values of other tokens in the slots behind the truncation.
        engine.forward([Chunk(dirty, SOME[::-1])])
        engine.truncate(dirty, 0)
        expected = engine.forward([Chunk(clean, SOME[:7], Logits.ALL)])[0].logits
        found = engine.forward([Chunk(dirty, SOME[:7], Logits.ALL)])[0].logits
    np.testing.assert_array_equal(found, expected)


def test_the_cache_is_kept_as_codes_and_moves_between_engines_of_one_bundle(tiny_bundle) -> None:
    with (
        OnnxEngine.load(tiny_bundle("llama", 8), threads=1) as first,
        OnnxEngine.load(tiny_bundle("llama", 8), threads=1) as second,
        OnnxEngine.load(tiny_bundle("llama", 32), threads=1) as other,
    ):
        assert first.info.details["kv"] == "uint16"
        assert first.info.details["precision"] == "w8a16"
        assert first.info.details["lengths"] == "12 1"
        sequence = first.open()
        first.forward([Chunk(sequence, SOME)])
        kv = first.export_kv(sequence)
        moved = second.import_kv(kv)
        with pytest.raises(KVMismatchError, match="fingerprint"):
            other.import_kv(kv)
        expected = first.forward([Chunk(sequence, [1])])[0].logits
        np.testing.assert_array_equal(second.forward([Chunk(moved, [1])])[0].logits, expected)


def test_accuracy_is_that_of_the_model_where_nothing_is_rounded(tiny_model, tiny_bundle) -> None:
    with (
        OnnxEngine.load(tiny_model("llama"), threads=1) as model,
        OnnxEngine.load(tiny_bundle("llama", 32), threads=1) as same,
        OnnxEngine.load(tiny_bundle("llama", 8), threads=1) as rounded,
    ):
        exact = compare(model, same, [SOME], answer_tokens=6)
        near = compare(model, rounded, [SOME], answer_tokens=6)
    assert (exact.same_token, exact.same_answers, exact.positions) == (1.0, 1, 46)
    assert exact.divergence < 1e-4
    assert near.same_token > 0.85
    assert 0 < near.divergence < 0.05
    assert near.perplexity[1] == pytest.approx(near.perplexity[0], rel=0.1)


def test_four_bits(tiny_model, tmp_path: Path) -> None:
    from model_runtime.export.quantization import Grid

    rng = random.Random(2)
    prompts = [[rng.randrange(258) for _ in range(48)] for _ in range(2)]
    export_npu(tiny_model("llama"), tmp_path / "q4", Plan((12, 1), 96, Grid(weights=4)), prompts, nothing)
    with OnnxEngine.load(tiny_model("llama"), threads=1) as model, OnnxEngine.load(tmp_path / "q4", threads=1) as found:
        assert found.info.details["precision"] == "w4a16"
        logits = [each.forward([Chunk(each.open(), SOME, Logits.ALL)])[0].logits for each in (model, found)]
    assert np.corrcoef(logits[0].ravel(), logits[1].ravel())[0, 1] > 0.75


@pytest.mark.parametrize(
    ("plan", "message"),
    [(((64, 64), 128), "different numbers"), (((), 128), "different numbers"), (((64, 1), 32), "does not fit")],
)
def test_plans_that_cannot_be(plan: tuple, message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        Plan(*plan)


def test_prompts_shorter_than_a_pass_and_targets_that_are_there(tiny_model, tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"at least one prompt of 64 tokens .* the longest has 3"):
        export_npu(tiny_model("llama"), tmp_path / "new", Plan((64,), 128), [[1, 2, 3]], nothing)
    assert not list(tmp_path.iterdir())
    with pytest.raises(BadInputError, match="there already"):
        export_npu(tiny_model("llama"), tmp_path, Plan((64,), 128), [], nothing)


def test_a_graph_that_has_fixed_shapes_already_is_refused(tiny_model, tmp_path: Path) -> None:
    with pytest.raises(ModelFormatError):
        export_npu(tiny_model("llama") / "model.fixed.onnx", tmp_path / "x", Plan((4,), 96, None), [], nothing)


def test_damaged_bundles(tiny_bundle, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_bundle("llama", 32), tmp_path / "bundle"))
    manifest = json.loads((folder / "npu.json").read_text())
    for change, message in (
        ({"format": 99}, "format 99"),
        ({"slots": 7}, "export anew"),
        ({"stages": []}, "names no graph"),
        ({"slots": "many"}, "no manifest"),
    ):
        (folder / "npu.json").write_text(json.dumps(manifest | change))
        with pytest.raises(ModelFormatError, match=message):
            OnnxEngine.load(folder, threads=1)


def test_the_command(tiny_model, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [json.dumps({"prompt": "Who locked the north gate? " * 3 + str(index)}) for index in range(4)]
    (tmp_path / "prompts.jsonl").write_text("\n".join(lines))
    model, target, prompts = str(tiny_model("llama")), str(tmp_path / "npu"), str(tmp_path / "prompts.jsonl")
    command = ["export-npu", model, target, "--context", "160", "--lengths", "16,1", "--answer-tokens", "4"]
    assert cli.main(command) == 1
    assert "quantizing needs --prompts" in capsys.readouterr().err
    assert cli.main([*command, "--prompts", prompts]) == 0
    said = capsys.readouterr().out
    assert "perplexity" in said
    assert "of 1 greedy answers the same" in said
    with OnnxEngine.load(tmp_path / "npu", threads=1) as engine:
        assert engine.info.context_length == 160
    assert cli.main([*command, "--prompts", prompts]) == 1
    assert "there already" in capsys.readouterr().err


def test_a_hugging_face_folder_needs_optimum(tiny_model, tmp_path: Path) -> None:
    from model_runtime.export.hugging_face import as_onnx

    for name in ("model.safetensors", "config.json"):
        shutil.copy(tiny_model("llama") / name, tmp_path)
    with pytest.raises(EngineUnavailableError, match="optimum-cli"), as_onnx(tmp_path, "no-such-program", nothing):
        pass
    # What is said to Optimum, and what of its answer is used.
    program = tmp_path / "optimum-cli"
    program.write_text(f'#!/bin/sh\nfor last; do :; done\ncp {tiny_model("llama")}/model.onnx "$last"/\n')
    program.chmod(0o755)
    with as_onnx(tmp_path, str(program), nothing) as made:
        assert [file.name for file in made.iterdir()] == ["model.onnx"]
    program.write_text("#!/bin/sh\necho this architecture is not known >&2\nexit 1\n")
    with pytest.raises(ModelFormatError, match="not known"), as_onnx(tmp_path, str(program), nothing):
        pass
