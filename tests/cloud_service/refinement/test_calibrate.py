"""Calibration: heads that retrieve are found, written, and loaded for the model they are of."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import msgspec
import numpy as np
import pytest

from cloud_service.cli import ExitCode, main
from cloud_service.refinement import calibration
from cloud_service.refinement.calibrate.command import calibrate, report, write
from cloud_service.refinement.calibrate.fitting import (
    best_answer_heads,
    best_heads,
    fit_floors,
    kept_share,
    precision_of,
    recall,
    told_apart,
)
from cloud_service.refinement.calibrate.looking import Look
from cloud_service.refinement.calibrate.probes import Probe, ProbeError, default_text, make_probes, read_probes
from cloud_service.refinement.calibration import Calibration, CalibrationError
from cloud_service.refinement.contract import Prompt
from cloud_service.refinement.factory import RefinementError, build_refinery
from cloud_service.refinement.floors import Floors
from cloud_service.refinement.guard import Boundary
from cloud_service.settings import Settings
from model_runtime.core import AttentionTap, Chunk, Engine, FloatArray, Result
from model_runtime.testing import ScriptedEngine

NAMES = ("zebra", "quartz", "violin", "jasper", "walnut", "pixel", "onyx", "yarrow")


class OneGoodHead(ScriptedEngine):
    """Head 1 of layer 2 looks at the same token elsewhere; head 0 of layer 1 looks at the text only when asked to
    count; all others look at the token before."""

    def forward(self, chunks, cancellation=None):  # type: ignore[no-untyped-def]
        results = super().forward(chunks, cancellation)
        return [self._looking(chunk, result) for chunk, result in zip(chunks, results, strict=True)]

    def _looking(self, chunk: Chunk, result: Result) -> Result:
        if result.attention is None or chunk.tap is None:
            return result
        return Result(result.logits, self._weights(chunk, chunk.tap, result.attention))

    def _weights(self, chunk: Chunk, tap: AttentionTap, given: FloatArray) -> FloatArray:
        weights = given.copy()
        rows, keys = weights.shape[2:]
        counting = b"How many" in b"".join(map(self.tokenizer.token_bytes, chunk.tokens))
        for index, layer in enumerate(tap.layers):
            for head in range(weights.shape[1]):
                if (layer, head) == (2, 1):
                    continue
                weights[index, head] = 0
                for row in range(rows):
                    at = keys - rows + row
                    weights[index, head, row, 5 if (layer, head) == (1, 0) and counting else max(at - 1, 0)] = 1
        return weights


def probes(count: int) -> list[Probe]:
    """A name stands in one line; or all lines are to be counted."""
    rng = Random(7)
    made = []
    for number in range(count):
        name = NAMES[number % len(NAMES)]
        lines = [f"{rng.randint(100, 999)} the crew was at the pump." for _ in range(20)]
        lines[at := rng.randrange(20)] = f"{name} at it."
        start = sum(len(line) + 1 for line in lines[:at])
        text = "\n".join(lines)
        made.append(Probe(text, f"Where is {name}?", ((start, start + len(lines[at])),)))
        made.append(Probe(text, f"How many of {name}?"))
    return made


@pytest.fixture(scope="module")
def engine() -> Engine:
    return OneGoodHead(layers=4, heads=2)


def test_the_head_that_retrieves_and_the_one_that_tells_counting_are_found(engine: Engine, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    outcome = calibrate(engine, probes(24), progress=lambda done, of: seen.append((done, of)))
    found = outcome.calibration
    assert found.heads[0] == (2, 1)
    assert found.boundary is not None
    assert found.boundary.heads[0] == (1, 0)
    assert set(found.layers) >= {1, 2}
    assert found.measured["recall_at_0.25"] == 1.0
    assert found.measured["kept_whole_without"] == 1.0
    assert found.measured["kept_whole_with_evidence"] == 0.0
    assert seen[-1] == (48, 48)
    assert "2.1" in report(outcome)

    path = tmp_path / "refinement.json"
    write(outcome, engine, path)
    info = engine.info
    assert calibration.load(path, info.model_fingerprint, layers=info.layers, heads=info.heads) == found
    refinery = build_refinery("auto", "no-such-model", info, calibrated=path)
    assert refinery.needs.layers == found.layers
    refinery.close()


def test_the_floors_are_below_what_answers_rest_on() -> None:
    """Questions about five lines look at the last one less, and head 1.0 looks at the text for these alone."""
    fives = [line_look(0.5 if number % 2 else 0.3, {1, 2, 4, 6, 7}, regard=0.8) for number in range(20)]
    singles = [line_look(0.2, {2}, regard=0.1) for _ in range(20)]
    heads = [(0, 0)]
    floors = fit_floors([*fives, *singles], heads, {0, 1})
    assert floors is not None
    assert floors.boundary is not None
    assert (1, 0) in floors.heads
    assert 0.1 < floors.several < 0.2
    assert floors.single == pytest.approx(0.5)
    assert told_apart([*fives, *singles], heads, floors) == 1.0
    assert recall([*fives, *singles], heads, 0.9, floors=floors) == 1.0
    assert recall(fives, heads, 0.9, floors=Floors(0.4, 0.4)) == 0.5
    assert kept_share(singles, heads, 0.9, floors) < kept_share(fives, heads, 0.9, floors)
    assert kept_share(fives, heads, 0.9, floors) < kept_share(fives, heads, 0.9)
    # Only layers that are tapped anyway are watched; and questions about one line say nothing about others.
    assert fit_floors([*fives, *singles], heads, {0}).heads == ((0, 0),)  # type: ignore[union-attr]
    assert fit_floors(singles, heads, {0, 1}) is None
    alone = fit_floors(fives, heads, {0, 1})
    assert alone is not None
    assert (alone.single, alone.boundary) == (alone.several, None)


def line_look(last: float, evidence: set[int], *, regard: float) -> Look:
    lines = [f"line {number} of the log says this.\n".encode() for number in range(10)]
    prompt = Prompt(tuple(range(10)), tuple(lines))
    weights = np.full((2, 1, 10), 0.01, np.float32)
    weights[0, 0, sorted(evidence)] = 0.9
    weights[0, 0, [2, 7]] = 1.0, last
    regards = np.array([[0.5], [regard]], np.float32)
    found = tuple((at, at + 1) for at in range(10))
    return Look(prompt, weights, weights, regards, found, np.isin(np.arange(10), sorted(evidence)))


def test_a_floor_for_one_line_need_not_reach_down_to_what_is_among_the_best_few_anyway() -> None:
    fives = [line_look(0.3, {1, 2, 4, 6, 7}, regard=0.8) for _ in range(20)]
    second = [line_look(0.2, {7}, regard=0.1) for _ in range(20)]  # line 2 is above it, and no other
    floors = fit_floors([*fives, *second], [(0, 0)], {0, 1})
    assert floors is not None
    assert floors.single == pytest.approx(0.5)
    assert recall(second, [(0, 0)], 0.9, floors=floors) == 1.0


def test_too_few_probes_are_refused(engine: Engine) -> None:
    with pytest.raises(ProbeError, match="at least 8"):
        calibrate(engine, probes(3))


def test_probes_out_of_any_text() -> None:
    made = make_probes(default_text(), lambda part: len(part.split()), lengths=(100, 300), count=6, seed=3)
    assert made == make_probes(default_text(), lambda part: len(part.split()), lengths=(100, 300), count=6, seed=3)
    assert [probe.flat for probe in made] == [False, True] * 6
    for probe in made[::2]:
        ((start, end),) = probe.evidence
        fact = probe.text[start:end]
        asked = probe.question.removeprefix("What is the ").rstrip("?")
        assert fact.startswith(f"The {asked} is ")
        assert probe.text.count(fact) == 1
        assert probe.messages[0]["content"].endswith(probe.question)
    with pytest.raises(ProbeError, match="too short"):
        make_probes("Two words. And more.", len, lengths=(1000,), count=1, seed=0)


def test_probes_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "probes.jsonl"
    path.write_text('{"text": "abc", "question": "b?", "evidence": [[1, 2]]}\n\n{"text": "abc", "question": "all?"}\n')
    assert read_probes(path) == [Probe("abc", "b?", ((1, 2),)), Probe("abc", "all?")]
    for bad, why in (
        ('{"text": "abc"}', "line 1 is no probe"),
        ('{"text": "abc", "question": "b?", "evidence": [[1, 9]]}', "not within the text"),
    ):
        path.write_text(bad)
        with pytest.raises(ProbeError, match=why):
            read_probes(path)
    with pytest.raises(ProbeError, match="cannot be read"):
        read_probes(tmp_path / "none")


KNOWN = Calibration("m", "scripted", ((2, 1),), boundary=Boundary((0.0,) * 6, -1.0, heads=((0, 1),)))


def test_a_file_holds_several_models(tmp_path: Path) -> None:
    path = tmp_path / "refinement.json"
    other = Calibration("other", "scripted", ((0, 0),), answer_heads=((0, 0),), rows=16)
    calibration.save(path, "one", KNOWN)
    calibration.save(path, "two", other)
    assert calibration.load(path, "one", layers=3, heads=2) == KNOWN
    assert calibration.load(path, "two", layers=1, heads=1) == other
    assert calibration.load(path, "three", layers=3, heads=2) is None
    assert KNOWN.layers == (0, 2)


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "refinement.json"
    with pytest.raises(CalibrationError, match="cannot be read"):
        calibration.load(path, "one", layers=3, heads=2)
    for text in ("{", "{}", '{"version": 2, "models": {}}', '{"version": 1, "models": {"one": {"heads": []}}}'):
        path.write_text(text)
        with pytest.raises(CalibrationError, match="no calibration of version 1"):
            calibration.load(path, "one", layers=3, heads=2)
    path.unlink()
    calibration.save(path, "one", KNOWN)
    with pytest.raises(CalibrationError, match="heads that the model has not"):
        calibration.load(path, "one", layers=2, heads=2)


def test_a_calibration_that_was_asked_for_must_fit(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = tmp_path / "model.onnx"
    model.touch()
    info = ScriptedEngine(layers=4).info
    calibration.save(tmp_path / calibration.FILE_NAME, "another", KNOWN)
    build_refinery("auto", str(model), info).close()
    assert "of another model" in caplog.text
    with pytest.raises(CalibrationError, match="of other models"):
        build_refinery("auto", str(model), info, calibrated=tmp_path / calibration.FILE_NAME)


def test_what_the_settings_choose(tmp_path: Path) -> None:
    info = ScriptedEngine(layers=4).info
    for choice, names in (
        ("auto", ["attention"]),
        ("answer-attention", ["attention", "answer-attention"]),
        ("attention", ["attention"]),
        ("bm25", ["bm25"]),
        ("self-information", ["self-information"]),
        ("head-tail", ["head-tail"]),
        ("random", ["random"]),
        ("off", []),
    ):
        refinery = build_refinery(Settings(model="m", refine=choice).refine, "m", info)
        assert [stage.name for stage in refinery.stages] == names
        refinery.close()
    found = tmp_path / "found.json"
    calibration.save(found, info.model_fingerprint, msgspec.structs.replace(KNOWN, answer_heads=((1, 0),)))
    refinery = build_refinery("auto", "m", info, calibrated=found)
    assert [stage.name for stage in refinery.stages] == ["attention", "answer-attention"]
    assert refinery.needs.layers == (0, 1, 2)
    refinery.close()
    loaded: list[str] = []

    def load(spec: str) -> Engine:
        loaded.append(spec)
        return ScriptedEngine(layers=4)

    refinery = build_refinery("model", "m", info, scorer_model="small", load_scorer=load)
    assert [stage.name for stage in refinery.stages] == ["scorer-model"]
    assert loaded == ["small"]
    refinery.close()
    with pytest.raises(RefinementError, match="set refine_model"):
        build_refinery("model", "m", info)


def test_an_engine_that_shows_no_attention() -> None:
    from dataclasses import replace

    info = ScriptedEngine(layers=4).info
    blind = replace(info, capabilities=replace(info.capabilities, attention_tap=False))
    refinery = build_refinery("auto", "m", blind)
    assert refinery.needs.nothing
    assert "shows no attention" in refinery.whole().detail
    refinery.close()
    with pytest.raises(RefinementError, match="shows no attention"):
        build_refinery("attention", "m", blind)


def test_a_second_stage_is_taken_where_it_helps() -> None:
    """The head that serves the question is blind in half of the probes; another sees the line while it is quoted."""
    pieces = (b"", b"user\n", *(b"One line more.\n" for _ in range(12)), b"Which?", b"", b"assistant\n")
    prompt = Prompt(tuple(range(len(pieces))), pieces, ((0, 2), (14, len(pieces))))
    lines = tuple((at, at + 1) for at in range(2, 14))

    def shown(line: int, *, blind: bool) -> Look:
        weights, answer = np.zeros((2, 2, 2, len(pieces)), np.float32)
        weights[0, 1, 2 if blind else 2 + line] = 0.5
        answer[1, 0, 2 + line] = 0.1
        answer[0, 0, 2] = 0.9
        return Look(prompt, weights, answer, np.zeros((2, 2), np.float32), lines, np.arange(12) == line)

    looks = [shown(line, blind=bool(line % 2)) for line in range(1, 12)]
    heads, precision = best_heads(looks)
    assert heads == ((0, 1),)
    assert precision < 1
    assert best_answer_heads(looks, heads) == ((1, 0),)
    assert precision_of(looks, heads, ((1, 0),)) > precision_of(looks, heads)
    assert recall(looks, heads, 0.45, ((1, 0),)) == 1.0


def test_the_command_on_a_bundled_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "found.json"
    model = str(Path(__file__).parents[3] / "demos/models/device")
    options = ["--count", "9", "--tokens", "150", "--threads", "1", "--out", str(out)]
    assert main(["calibrate", model, *options]) == ExitCode.OK
    assert "written to" in capsys.readouterr().out
    assert json.loads(out.read_text())["version"] == 1
    assert main(["calibrate", model, "--probes", str(tmp_path / "none"), "--out", str(out)]) == ExitCode.BAD_SETTINGS
    assert main(["calibrate", str(tmp_path / "none"), "--out", str(out)]) == ExitCode.MODEL_NOT_LOADED
    assert "cannot be read" in capsys.readouterr().err
