"""`pd-plan` as a user calls it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from model_runtime.profiles import load_link, load_profile, profile_text
from planner.cli import main
from planner.cli.main import COMMANDS
from speed_controller.plan_file import read_split_config

WORKLOAD = "poisson:rate=2,requests=400,prompt=1000~0.5,output=150~0.5"


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    try:
        code = main(arguments)
    except SystemExit as ended:  # argparse
        code = int(ended.code or 0)
    out, err = capsys.readouterr()
    return code, out, err


def as_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    code, out, err = run(capsys, *arguments, "--json")
    assert code == 0, err
    return json.loads(out)


@pytest.mark.parametrize(
    "command",
    [[], *([name] for name in COMMANDS), *(["profile", kind] for kind in ("device", "cloud", "link", "list"))],
)
def test_help_has_an_example(capsys: pytest.CaptureFixture[str], command: list[str]) -> None:
    code, out, _ = run(capsys, *command, "--help")
    assert code == 0
    assert "pd-plan" in out
    assert "example" in out


def test_the_package_starts_as_a_module() -> None:
    command = [sys.executable, "-m", "planner.cli", "--help"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    assert "exit codes" in done.stdout


def test_workload_says_what_it_is_like(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text("arrival,prompt_tokens,output_tokens\n0,100,10\nx,1,1\n2,300,30\n")
    found = as_json(capsys, "workload", str(path))
    assert (found["requests"], found["skipped_rows"], found["prompt_tokens"]["max"]) == (2, 1, 300)
    code, out, err = run(capsys, "workload", str(path), "--first", "1", "--rate-factor", "2")
    assert code == 0
    assert "1 requests" in out
    assert "skipped row 3: Invalid isoformat" in err


def test_solve_writes_what_the_sdk_reads(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "split.toml"
    found = as_json(
        capsys, "solve", "--workload", WORKLOAD, "--buckets", "3", "--ttft-p95-ms", "3000", "--out", str(path)
    )
    config = read_split_config(path.read_text())
    assert [bucket["route"] for bucket in found["config"]["bucket"]] == [
        bucket.route.value for bucket in config.buckets
    ]
    assert set(config.inputs) == {"device", "cloud", "link", "workload"}
    assert all("sha256:" in value for value in config.inputs.values())
    assert "(published)" in config.inputs["device"]
    assert sum(found["shares"]) == pytest.approx(1)
    code, out, _ = run(
        capsys, "solve", "--workload", WORKLOAD, "--buckets", "2", "--ttft-p95-ms", "3000", "--error-from", str(path)
    )
    assert code == 0
    assert "decided by" in out
    assert "phone-snapdragon-8-elite (published)" in out


def test_solve_with_a_table_of_quality_refines(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    table = tmp_path / "quality.json"
    table.write_text(json.dumps({"source": "a test", "points": [[0.25, 0.9], [0.5, 0.98], [1.0, 1.0]]}))
    command = "--ends 600 --routes split --instances 4 --ttft-p95-ms 5000"
    arguments = ("solve", "--workload", WORKLOAD, *command.split(), "--quality", str(table))
    found = as_json(capsys, *arguments, "--min-quality", "0.95")
    assert {bucket["keep_ratio"] for bucket in found["config"]["bucket"]} == {0.5}
    code, _, err = run(capsys, *arguments)
    assert (code, "--min-quality" in err) == (2, True)


def test_an_infeasible_plan_ends_with_3_and_says_what_to_relax(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "solve", "--workload", WORKLOAD, "--ttft-p95-ms", "20")
    assert (code, out) == (3, "")
    assert "relax ttft_p95 from 20 ms to" in err


def test_energy_needs_watts(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = (
        "solve",
        "--workload",
        WORKLOAD,
        "--objective",
        "device-energy",
        "--buckets",
        "2",
        "--ttft-p95-ms",
        "3000",
    )
    code, _, err = run(capsys, *arguments)
    assert (code, "--device-watts" in err) == (2, True)
    found = as_json(capsys, *arguments, "--device-watts", "6,4")
    assert all("device_joules" in bucket["predicted"] for bucket in found["config"]["bucket"])


def test_profiles_are_listed_with_where_they_come_from(capsys: pytest.CaptureFixture[str]) -> None:
    found = as_json(capsys, "profile", "list")
    kinds = [one.get("kind", "device") for one in found["hardware"]]
    assert kinds.count("device") >= 6
    assert kinds.count("datacentre") >= 4
    assert len(found["links"]) >= 6  # loopback is no network
    assert all("https://" in one["source"] and one["measured"] is None for one in found["hardware"])
    assert "published" in run(capsys, "profile", "list")[1]


def test_a_device_is_measured_and_its_profile_can_be_planned_with(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "mine.json"
    model = "demos/models/device-alt/model.onnx"
    found = as_json(capsys, "profile", "device", "--model", model, "--quick", "--out", str(path), "--watts", "6,4")
    assert found["measured"]["date"]
    assert found["load_ms"] > 0
    assert load_profile(path).decode_watts == 4
    _, out, _ = run(
        capsys,
        "solve",
        "--workload",
        WORKLOAD,
        "--device",
        str(path),
        "--buckets",
        "2",
        "--max-gap-p99-ms",
        "2000",
        "--ttft-p95-ms",
        "60000",
    )
    assert "this-machine (measured on" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("solve", "--workload", "missing.csv"), "cannot read missing.csv"),
        (("solve", "--workload", WORKLOAD, "--device", "no-such-phone"), "no hardware profile 'no-such-phone'"),
        (("solve", "--workload", WORKLOAD, "--link", "string"), "no link profile 'string'"),
        (("solve", "--workload", WORKLOAD, "--routes", "moon"), "--routes is 'moon'"),
        (("solve", "--workload", WORKLOAD, "--objective", "love"), "no objective 'love'"),
        (("solve", "--workload", WORKLOAD, "--prefill-instances", "1"), "prefill_instances is 1 of 1"),
        (("solve", "--workload", WORKLOAD, "--device-watts", "3"), "is not watts"),
        (("workload", "poisson:rate=-1"), "rate is -1"),
        (("workload", WORKLOAD, "--window", "a:b"), "is no window"),
        (("profile", "device", "--model", "missing.gguf"), "missing.gguf"),
        (("profile", "moon",), "invalid choice"),
    ],
)  # fmt: skip
def test_input_that_cannot_be_used_ends_with_2(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "")
    assert message in err


def test_a_service_that_is_not_there_is_a_failed_measurement(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "profile", "link", "--url", "ws://127.0.0.1:9")
    assert (code, "no connection" in err) == (1, True)


def test_a_measured_profile_is_told_from_a_published_one() -> None:
    text = profile_text(load_link("5g"))
    assert "measured" not in text
    assert os.linesep == "\n" or "\r" not in text
