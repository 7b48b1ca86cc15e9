"""`pd-demo` as people run it: a process of its own, a real cloud process, real models, real sockets."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
COMMAND = (sys.executable, "-m", "demos.side_by_side.cli")
QUESTION = ("--question", "Who moved the kettle?", "--max-tokens", "12")


def demo(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [*COMMAND, "--out", str(tmp_path / "out"), *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)


def runs(finished: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert finished.returncode == 0, finished.stderr
    return {run["mode"]: run for run in json.loads(finished.stdout)["runs"]}


def test_json_alone_is_on_stdout_and_pictures_are_drawn(tmp_path: Path) -> None:
    found = demo(tmp_path, *QUESTION, "--raw", "--json")
    by_mode = runs(found)
    assert list(by_mode) == ["ONLY_ON_DEVICE", "ONLY_IN_CLOUD", "SPLIT"]
    assert by_mode["ONLY_ON_DEVICE"]["cloud_tokens"] == 0
    assert by_mode["ONLY_IN_CLOUD"]["device_tokens"] == 0
    for run in by_mode.values():
        assert run["cloud_tokens"] + run["device_tokens"] == len(run["token_ids"])
        assert run["finish_reason"] in {"eos", "length"}
        assert run["ttft_ms"] > 0
    assert json.loads((tmp_path / "out" / "side-by-side.json").read_text()) == json.loads(found.stdout)
    assert (tmp_path / "out" / "timeline-1.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("sampling", [(), ("--temperature", "0.8", "--seed", "7")], ids=["greedy", "sampled"])
def test_the_same_model_on_both_sides_gives_the_same_tokens_though_the_cloud_is_killed(
    tmp_path: Path, sampling: tuple[str, ...]
) -> None:
    # A slow device, so that the cloud has given its tokens before the device is ready, however busy this machine is.
    hardware = ("--device-profile", "edge-sa8295p", "--link", "wifi-fibre", "--grant", "8", "--pace-ms", "250")
    found = demo(tmp_path, *QUESTION, *hardware, *sampling, "--same-model", "--kill-cloud-after", "2", "--json")
    by_mode = runs(found)
    assert "the cloud process was killed after 2 tokens" in found.stderr
    assert by_mode["SPLIT"]["cloud_tokens"] >= 2
    assert by_mode["SPLIT"]["device_tokens"] > 0
    for key in ("token_ids", "text", "finish_reason"):
        assert by_mode["SPLIT"][key] == by_mode["ONLY_ON_DEVICE"][key] == by_mode["ONLY_IN_CLOUD"][key]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--device-model", "no/such/model.onnx"), "no/such/model.onnx"),
        (("--cloud-model", "no/such/model.gguf"), "no/such/model.gguf"),
        (("--device-profile", "abacus"), "abacus"),
        (("--prompt-file", "no/such/log.txt"), "no/such/log.txt"),
    ],
)
def test_what_is_missing_is_named_in_one_line_with_code_2(
    tmp_path: Path, arguments: tuple[str, str], complaint: str
) -> None:
    found = demo(tmp_path, "--json", *arguments)
    last = found.stderr.strip().splitlines()[-1]
    assert found.returncode == 2
    assert last.startswith("pd-demo: ")
    assert complaint in last
    assert "Traceback" not in found.stderr
    assert found.stdout == ""


@pytest.mark.parametrize(
    ("package", "arguments"), [("rich", ()), ("matplotlib", ()), ("llama_cpp", ("--engine", "llama"))]
)
def test_a_package_that_is_not_installed_is_named_with_code_2(
    tmp_path: Path, package: str, arguments: tuple[str, ...]
) -> None:
    code = (
        f"import sys; sys.modules[{package!r}] = None\n"
        f"from demos.side_by_side.cli import main; sys.exit(main({['--out', str(tmp_path), *arguments]}))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=100, check=False
    )
    assert found.returncode == 2
    assert package.replace("_", "-") in found.stderr.replace("_", "-")
    assert found.stderr.startswith("pd-demo: ")
    assert len(found.stderr.splitlines()) == 1


@pytest.fixture
def heeded() -> Iterator[None]:
    """A shell has what it starts in the background ignore interruptions, and so does all that this starts in turn."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heeded")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_takes_the_cloud_process_with_it(tmp_path: Path, how: signal.Signals) -> None:
    command = [*COMMAND, "--out", str(tmp_path), "--quick"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        for line in running.stdout:
            if "question 1" in line:
                break
        children = Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()
        assert len(children) == 1
        running.send_signal(how)
        _, errors = running.communicate(timeout=30)
        assert running.returncode == 130
        assert errors.strip() == "pd-demo: interrupted"
    deadline = time.monotonic() + 5
    while Path(f"/proc/{children[0]}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    with pytest.raises(ProcessLookupError):
        os.kill(int(children[0]), 0)
