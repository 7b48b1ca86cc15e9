from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from device_sdk import HybridClient, Mode
from device_sdk.report import Report
from model_runtime.profiles import load_link, load_profile
from model_runtime.testing import ScriptedEngine
from planner.cli import main
from planner.config import to_toml
from planner.core import Bucket, CloudProfile, Request, Route, SplitConfig
from planner.cost import Decision, World, forecast
from planner.errors import MeasurementError
from planner.profiling.live import connected
from planner.simulator.world import Setup
from planner.validation import Trial, beside_default, errors, loaded_row, rows, run_trials, run_under_load
from planner.validation.trials import prompt_of
from speed_controller.plan_file import read_split_config
from tests.cloud_service.conftest import serve

__all__ = ["serve"]

CONFIG = SplitConfig((Bucket(60, Route.DEVICE, pace=0.01), Bucket(None, Route.SPLIT, 6, pace=0.01)), max_grant=6)


def world() -> World:
    cloud = CloudProfile(load_profile("datacentre-a100-pcie"))
    return World(load_profile("phone-snapdragon-8-elite"), cloud, load_link("loopback"))


def trial(ttft: float, gap: float, busy: float | None = 100.0) -> Trial:
    """A forecast of 0.2 s to the first token, 80 ms at most between two, 0.5 s of the cloud."""
    seen = forecast(world(), Decision(Route.SPLIT, 8, pace=0.08), 1000, 40)
    seen = replace(seen, ttft_mean=0.2, tpot_mean=0.05, max_gap_p99=0.08, cloud_seconds=0.5, cloud_tokens=8.0)
    report = Report(Mode.SPLIT, "eos", 1000, ttft_ms=ttft, tpot_mean_ms=50.0, max_gap_ms=gap, cloud_busy_ms=busy)
    return Trial(replace(report, cloud_tokens=8, device_tokens=32), seen)


def test_an_error_is_relative_to_what_was_measured() -> None:
    found = {row.metric: row for row in rows([trial(250, 70), trial(160, 79)])}
    assert found["ttft_ms"].error == pytest.approx((50 / 250 + 40 / 160) / 2)
    assert found["ttft_ms"].measured == 205
    assert found["tpot_ms"].error == pytest.approx(0)
    assert found["cloud_seconds"].error == pytest.approx(4.0)
    assert found["cloud_tokens"].error == 0
    assert found["max_gap_ms"].error == 0  # a quantile that is not exceeded
    exceeded = {row.metric: row for row in rows([trial(200, 70), trial(200, 100)])}
    assert exceeded["max_gap_ms"].error == pytest.approx(0.25)
    assert errors(list(exceeded.values()))["max_gap_ms"] == 0.25


def test_what_nobody_measured_has_no_row() -> None:
    assert "cloud_seconds" not in {row.metric for row in rows([trial(200, 70, None)])}


@pytest.mark.parametrize("tokens", [40, 120, 700])
def test_a_prompt_has_about_the_tokens_asked_for(tokens: int) -> None:
    tokenizer = ScriptedEngine().tokenizer
    found = len(tokenizer.render_chat(prompt_of(tokenizer, tokens, random.Random(1))))
    assert tokens - 12 <= found <= tokens


async def test_the_live_system_runs_at_the_planned_settings(serve: Callable[..., Any]) -> None:
    running = serve(ScriptedEngine(answer_length=100_000))
    phone = ScriptedEngine(answer_length=100_000, delay=lambda chunks: 0.001 * sum(len(one.tokens) for one in chunks))
    requests = [Request(0.0, 50, 12), Request(1.0, 400, 20)]
    async with HybridClient(device=phone, cloud=running.url, split=CONFIG) as client:
        said: list[str] = []
        trials = await run_trials(client, phone.tokenizer, world(), CONFIG, requests, warm_up=1, progress=said.append)
    assert [line.split(":")[0] for line in said] == ["warming up", "answer 1", "answer 2"]
    short, long = (one.report for one in trials)
    assert (short.mode, short.cloud_tokens, short.device_tokens) == (Mode.PREFER_ON_DEVICE, 0, 12)
    assert (long.mode, long.grant) == (Mode.SPLIT, 6)
    assert long.cloud_tokens + long.device_tokens == 20
    assert [one.forecast.cloud_tokens for one in trials] == [0, 6]
    assert all(one.report.prompt_tokens <= request.prompt_tokens for one, request in zip(trials, requests, strict=True))


async def test_the_same_requests_are_answered_at_default_settings_beside_the_plans(serve: Callable[..., Any]) -> None:
    running = serve(ScriptedEngine(answer_length=100_000))
    phone = ScriptedEngine(answer_length=100_000, delay=lambda chunks: 0.001 * sum(len(one.tokens) for one in chunks))
    requests = [Request(0.0, 400, 20), Request(1.0, 300, 15)]
    async with HybridClient(device=phone, cloud=running.url, split=CONFIG) as client:
        alone = await run_trials(client, phone.tokenizer, world(), CONFIG, requests[:1])
        trials = await run_trials(client, phone.tokenizer, world(), CONFIG, requests, beside_default=True)
    assert beside_default(alone) is None
    found = beside_default(trials)
    assert found is not None
    assert (found.answers, found.tokens[0]) == (2, 6)
    defaults = [one.default for one in trials if one.default is not None]
    assert len(defaults) == 2
    assert all(report.pace_ms != pytest.approx(10) for report in defaults)
    assert found.tokens[1] == sum(report.cloud_tokens for report in defaults) / 2
    assert all(gap > 0 for gap in found.gap_ms)


async def test_first_tokens_under_load_stand_beside_the_simulators(serve: Callable[..., Any]) -> None:
    """Passes of 50 ms, answers of six tokens, eight requests at once: all are asked, each has its own first token."""
    running = serve(ScriptedEngine(answer_length=100_000, delay=lambda _: 0.05), prefix_cache="off")
    requests = [Request(0.01 * n, 200 if n else 30, 20) for n in range(8)]
    async with connected(running.url) as live:
        loaded = await run_under_load(live, ScriptedEngine().tokenizer, CONFIG, requests)
        assert await run_under_load(live, ScriptedEngine().tokenizer, CONFIG, requests[:1]) is None
    assert loaded is not None
    assert len(loaded.ttft) == len(loaded.requests) == 7  # the short prompt is the device's
    assert all(150 < each.prompt_tokens <= 200 and each.output_tokens == 6 for each in loaded.requests)
    assert all(seconds >= 0.05 for seconds in loaded.ttft)
    assert [each.arrival for each in loaded.requests] == sorted(each.arrival for each in loaded.requests)
    known = world()
    row = loaded_row(loaded, Setup(known.device, known.link, known.cloud))
    assert (row.metric, row.answers) == ("ttft_p95_under_load_ms", 7)
    assert row.error == pytest.approx(abs(row.predicted - row.measured) / row.measured)
    assert 0 < row.predicted < row.measured  # an A100 is forecast, and passes of 50 ms are what there is


async def test_answers_without_a_token_prove_nothing(serve: Callable[..., Any]) -> None:
    running = serve(ScriptedEngine())
    phone = ScriptedEngine()
    async with HybridClient(device=phone, cloud=running.url, split=CONFIG) as client:
        with pytest.raises(MeasurementError, match="nothing can be compared"):
            await run_trials(client, phone.tokenizer, world(), CONFIG, [Request(0.0, 50, 0)])


def test_the_error_is_stored_with_the_configuration_and_widens_the_next_one(
    serve: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    running = serve(ScriptedEngine(answer_length=100_000))
    path, workload = tmp_path / "split.toml", "poisson:requests=50,prompt=100-300,output=8-12"
    profiles = ("--workload", workload, "--link", "loopback", "--buckets", "1", "--routes", "split")
    assert main(["solve", *profiles, "--out", str(path)]) == 0
    before = read_split_config(path.read_text())
    capsys.readouterr()
    command = ["validate", "--config", str(path), *profiles[:4], "--model", "demos/models/device-alt/model.onnx"]
    more = ("--url", running.url, "--answers", "2", "--beside-default", "--under-load", "3", "--json")
    assert main([*command, *more]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["beside_default"]["answers"] == 2
    assert found["metrics"]["ttft_p95_under_load_ms"]["answers"] == 3
    assert len(found["answers"]) == 2
    after = read_split_config(path.read_text())
    assert after.error.keys() == found["metrics"].keys() >= {"ttft_ms", "max_gap_ms"}
    assert replace(after, error={}) == before
    wide = replace(after, error={"ttft_ms": 0.5})
    path.write_text(to_toml(wide))
    assert main(["solve", *profiles, "--error-from", str(path), "--json"]) == 0
    widened = json.loads(capsys.readouterr().out)["config"]["bucket"][0]["predicted"]["ttft_p95_ms"]
    assert widened == pytest.approx(1.5 * before.buckets[0].predicted["ttft_p95_ms"], rel=0.05)


def test_a_configuration_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "none.toml"
    command = ["validate", "--config", str(path), "--workload", "poisson", "--model", "x", "--url", "ws://127.0.0.1:9"]
    assert main(command) == 2
    assert "cannot read" in capsys.readouterr().err
