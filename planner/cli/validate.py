"""`pd-plan validate`."""

from __future__ import annotations

import argparse
import asyncio
import os
from dataclasses import asdict, replace
from pathlib import Path

from device_sdk.client import HybridClient
from device_sdk.errors import PdDeviceError
from model_runtime.core import Engine
from model_runtime.emulated import EmulatedEngine
from model_runtime.loading import load_engine
from model_runtime.profiles import load_profile
from planner.cli.inputs import (
    add_profiles,
    add_workload,
    input_hashes,
    read_config,
    read_profiles,
    read_workload,
)
from planner.cli.output import emit, note, say, table
from planner.config import to_toml
from planner.core import SplitConfig
from planner.cost import World
from planner.errors import MeasurementError, PlannerError
from planner.profiling.live import connected
from planner.simulator.world import Setup
from planner.validation import (
    Loaded,
    Row,
    Trial,
    beside_default,
    errors,
    loaded_row,
    rows,
    run_trials,
    run_under_load,
)

_DESCRIPTION = """\
Runs the live system (a device model on this machine, a running service) on requests of a workload at the settings of a
split configuration, one after the other, and prints what was forecast beside what was measured; with --under-load, what
the simulator says of first tokens while others ask, too. The error is stored with the configuration; pd-plan solve
--error-from FILE widens its quantiles by it.
"""
_EPILOG = """\
example:
  pd-cloud serve --model demos/models/cloud --port 8080 &
  pd-plan profile device --model demos/models/device --out d.json
  pd-plan profile cloud --url ws://127.0.0.1:8080 --out c.json
  pd-plan profile link --url ws://127.0.0.1:8080 --out l.json
  pd-plan solve --workload poisson:prompt=400-900,output=40-90 --device d.json --cloud c.json --link l.json \\
      --out split.toml
  pd-plan validate --config split.toml --workload poisson:prompt=400-900,output=40-90 --answers 20 \\
      --device d.json --cloud c.json --link l.json --model demos/models/device --url ws://127.0.0.1:8080
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description, parser.epilog = _DESCRIPTION, _EPILOG
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="what pd-plan solve wrote")
    add_workload(parser)
    add_profiles(parser)
    live = parser.add_argument_group("the live system")
    live.add_argument("--model", required=True, metavar="PATH", help="the device's: GGUF, ONNX, hf://owner/name[/file]")
    live.add_argument("--engine", choices=("auto", "onnx", "llama"), default="auto", help="by default by the file")
    live.add_argument("--threads", type=int, metavar="N", help="CPU threads of the device")
    live.add_argument(
        "--emulate", metavar="NAME", help="stretch the device's passes to a profile (labelled as emulated)"
    )
    live.add_argument("--url", required=True, help="of the service: ws://host[:port] or wss://host[:port]")
    live.add_argument(
        "--api-key", default=os.environ.get("PD_API_KEY"), metavar="KEY", help="by default the variable PD_API_KEY"
    )
    live.add_argument("--answers", type=int, default=20, metavar="N", help="how many (%(default)s)")
    live.add_argument(
        "--under-load", type=int, default=0, metavar="N",
        help="then N requests at their arrival times, for TTFT p95 under load; --rate-factor scales it (%(default)s)",
    )  # fmt: skip
    live.add_argument(
        "--beside-default", action="store_true", help="each request at the SDK's default settings, too, in turns"
    )
    live.add_argument(
        "--out", type=Path, metavar="FILE", help="for the configuration with its error; by default in place"
    )
    live.add_argument("--json", action="store_true", help="print one JSON object")


def run(given: argparse.Namespace) -> int:
    if given.answers < 1:
        raise PlannerError(f"--answers is {given.answers}; at least 1 is expected")
    if given.under_load < 0 or given.under_load == 1:
        raise PlannerError(f"--under-load is {given.under_load}; 0, or at least 2 requests are expected")
    device, cloud, link = read_profiles(given)
    config = read_config(given.config)
    workload = read_workload(given)
    for role, now in input_hashes(given, device, cloud, link, workload).items():
        if role != "workload" and config.inputs.get(role, now) != now:
            note(f"the {role} profile is not the one that the configuration was made from; its forecast may differ")
    requests = [request for request, _ in zip(workload, range(given.answers), strict=False)]
    engine: Engine = load_engine(given.model, engine=given.engine, threads=given.threads)
    if given.emulate:
        engine = EmulatedEngine(engine, load_profile(given.emulate), seed=given.seed)
    with engine:

        async def live() -> tuple[list[Trial], Loaded | None]:
            world = World(device, cloud, link)
            async with HybridClient(device=engine, cloud=given.url, api_key=given.api_key, split=config) as client:
                trials = await run_trials(
                    client,
                    engine.tokenizer,
                    world,
                    config,
                    requests,
                    seed=given.seed,
                    warm_up=1,
                    beside_default=given.beside_default,
                    progress=note,
                )
            if not given.under_load:
                return trials, None
            crowd = [request for request, _ in zip(workload, range(given.under_load), strict=False)]
            async with connected(given.url, given.api_key) as open_link:
                seed = given.seed + 1  # other prompts than before
                return trials, await run_under_load(
                    open_link, engine.tokenizer, config, crowd, seed=seed, progress=note
                )

        try:
            trials, loaded = asyncio.run(live())
        except PdDeviceError as error:
            raise MeasurementError(str(error)) from error
    found = rows(trials)
    if loaded is not None:
        found.append(loaded_row(loaded, Setup(device, link, cloud, seed=given.seed)))
        if loaded.rejected:
            note(f"the service rejected {loaded.rejected} of the requests under load; they are not counted")
    beside = beside_default(trials)
    _store(given.out or given.config, config, found)
    slower = engine.info.details.get("slower_passes")
    if slower:
        note(f"this machine was slower than the emulated profile in {slower} passes: so long, the run is no evidence")
    if given.json:
        result = _as_json(found, trials, hardware=engine.info.hardware) | {"slower_passes": slower}
        emit(result | {"beside_default": None if beside is None else asdict(beside)})
        return 0
    say(f"{len(trials)} answers of the live system; device: {engine.info.hardware}")
    table(
        ["metric", "answers", "predicted", "measured", "error"],
        [
            [row.metric, str(row.answers), f"{row.predicted:.4g}", f"{row.measured:.4g}", f"{row.error:.1%}"]
            for row in found
        ],
    )
    say("max_gap_ms is the 99th percentile: its error is how far it was exceeded. The others are means over answers.")
    if beside is not None:
        say(
            f"planned beside default settings, {beside.answers} answers each: largest gap p99 "
            f"{beside.gap_ms[0]:.0f} and {beside.gap_ms[1]:.0f} ms, cloud tokens per answer "
            f"{beside.tokens[0]:.1f} and {beside.tokens[1]:.1f}"
        )
    say(f"stored in {given.out or given.config}; pd-plan solve --error-from widens its quantiles by it")
    return 0


def _store(path: Path, config: SplitConfig, found: list[Row]) -> None:
    path.write_text(to_toml(replace(config, error=errors(found))), encoding="utf-8")


def _as_json(found: list[Row], trials: list[Trial], hardware: str) -> dict[str, object]:
    return {
        "device_hardware": hardware,
        "metrics": {
            row.metric: {
                "answers": row.answers,
                "predicted": row.predicted,
                "measured": row.measured,
                "error": row.error,
            }
            for row in found
        },
        "answers": [
            {
                "mode": trial.report.mode.value,
                "prompt_tokens": trial.report.prompt_tokens,
                "output_tokens": trial.output_tokens,
                "ttft_ms": [trial.forecast.ttft_mean * 1000, trial.report.ttft_ms],
                "tpot_ms": [trial.forecast.tpot_mean * 1000, trial.report.tpot_mean_ms],
                "max_gap_ms": [trial.forecast.max_gap_p99 * 1000, trial.report.max_gap_ms],
                "cloud_tokens": [trial.forecast.cloud_tokens, trial.report.cloud_tokens],
                "notices": list(trial.report.notices),
            }
            for trial in trials
        ],
    }
