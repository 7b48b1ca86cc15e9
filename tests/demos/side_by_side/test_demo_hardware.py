"""Which models and hardware the options choose, and that everything emulated is labelled so, with its source."""

from __future__ import annotations

from pathlib import Path

import pytest

from demos.side_by_side import hardware
from demos.side_by_side.errors import UsageError
from demos.side_by_side.hardware import SlowerThanEmulated, choose, machine, slower_than_emulated
from demos.side_by_side.options import parse
from model_runtime.core import Chunk
from model_runtime.emulated import EmulatedEngine
from model_runtime.profiles import HardwareProfile
from model_runtime.testing import ScriptedEngine


def test_by_default_everything_is_emulated_and_says_so() -> None:
    chosen = choose(parse([]))
    described = chosen.as_json(SlowerThanEmulated())
    for side in ("device", "cloud", "link"):
        assert described[side]["emulated"] is True
        assert len(described[side]["source"]) > 20
    assert all("emulated" in line for line in chosen.lines())
    assert len(chosen.sources()) == 3


def test_raw_emulates_nothing() -> None:
    described = choose(parse(["--raw"])).as_json(SlowerThanEmulated())
    assert [described[side]["emulated"] for side in ("device", "cloud", "link")] == [False, False, False]
    assert choose(parse(["--raw", "--link", "4g"])).link.emulated


def test_models_are_the_bundled_ones_unless_named() -> None:
    assert Path(choose(parse([])).cloud_model).parts[-2:] == ("cloud", "model.onnx")
    assert Path(choose(parse(["--engine", "llama"])).device_model).parts[-2:] == ("device", "model.gguf")
    named = choose(parse(["--device-model", "a.gguf", "--cloud-model", "b.onnx"]))
    assert (named.device_model, named.cloud_model) == ("a.gguf", "b.onnx")
    same = choose(parse(["--same-model", "--cloud-model", "b.onnx"]))
    assert same.device_model == same.cloud_model == "b.onnx"


def test_same_model_and_a_device_model_exclude_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["--same-model", "--device-model", "a.gguf"])
    assert "--same-model" in capsys.readouterr().err


def test_a_missing_bundled_model_is_named_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "_MODELS", tmp_path)
    with pytest.raises(UsageError, match=r"cloud/model\.onnx is missing; give one with --cloud-model"):
        choose(parse([]))


@pytest.mark.parametrize("option", ["--device-profile", "--cloud-profile"])
def test_an_unknown_profile_is_refused_with_the_known_ones(option: str) -> None:
    with pytest.raises(UsageError, match=r"abacus.*phone-snapdragon-8-elite"):
        choose(parse([option, "abacus"]))


@pytest.mark.parametrize(("rate", "slower"), [(1e9, True), (1_000.0, False)])
def test_a_machine_slower_than_what_it_emulates_is_told(tmp_path: Path, rate: float, slower: bool) -> None:
    """A pass of the scripted engine takes microseconds: more than a billion tokens a second, less than a thousand."""
    log = tmp_path / "cloud.log"
    log.write_text("WARNING: this machine is slower than the emulated gpu\n" if slower else "ready\n")
    profile = HardwareProfile(
        name="x", title="X", source="made up", prefill_tokens_per_s=((1, rate),), decode_ms=((1, 1000 / rate),)
    )
    with EmulatedEngine(ScriptedEngine(), profile) as engine:
        engine.forward([Chunk(engine.open(), [1, 2, 3])])
        found = slower_than_emulated(engine, log)
    assert (found.device is not None) == slower
    assert (found.cloud is not None) == slower
    assert len(found.lines()) == (2 if slower else 0)


def test_the_machine_is_described() -> None:
    described = machine()
    assert described["cores"] >= 1
    assert described["processor"]
    assert described["onnxruntime"]


@pytest.mark.parametrize(
    ("arguments", "refine"),
    [
        ([], None),
        (["--no-refine"], False),
        (["--refine", "0.1"], 0.1),
        (["--same-model"], False),
        (["--same-model", "--refine", "0.5"], 0.5),
    ],
)
def test_equal_tokens_are_promised_only_where_both_sides_read_the_same(
    arguments: list[str], refine: bool | float | None
) -> None:
    assert parse(arguments).refine == refine
