"""`pd-cloud` as an operator meets it: a real process, real signals, a real model."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import openai
import pytest

from cloud_service.cli import ExitCode, main
from cloud_service.settings import SECRET_FIELDS, Settings

MODEL = Path(__file__).parents[2] / "demos/models/device/model.onnx"


@pytest.fixture(autouse=True)
def _logging_as_before():
    """`main` sets up the process's logging, which is this process's here."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = before


@contextmanager
def process(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "cloud_service.cli", "serve", *arguments]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PD_CLOUD_")}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd=MODEL.parents[3]
    ) as running:
        try:
            yield running
        finally:
            running.kill()


def test_help_explains_every_setting_and_how_to_start(capsys):
    with pytest.raises(SystemExit) as left:
        main(["serve", "--help"])
    assert left.value.code == 0
    text = capsys.readouterr().out
    for name in Settings.model_fields:
        assert (f"--{name.replace('_', '-')}" in text) == (name not in SECRET_FIELDS)
    assert "pd-cloud serve --model" in text
    assert "exit codes" in text


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([], "model: Field required"),
        (["--model", "m", "--port", "x"], "port: Input should be a valid integer"),
        (["--model", "m", "--host", "192.168.0.1"], "no keys are configured"),
        (["--model", "m", "--config", "/nowhere.toml"], "no configuration file at /nowhere.toml"),
    ],
)
def test_settings_that_are_not_usable(capsys, arguments, named):
    assert main(["serve", *arguments]) == ExitCode.BAD_SETTINGS
    assert named in capsys.readouterr().err


def test_a_command_line_that_is_not_understood(capsys):
    with pytest.raises(SystemExit) as left:
        main(["serve", "--modle", "m"])
    assert left.value.code == 2
    assert "--modle" in capsys.readouterr().err


def test_a_port_that_is_taken(capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["serve", "--model", "m", "--port", str(port)]) == ExitCode.CANNOT_LISTEN
    assert f"cannot listen on 127.0.0.1 port {port}" in capsys.readouterr().err


def test_a_model_that_is_not_there():
    with process("--model", "/nowhere/model.gguf", "--port", "0") as running:
        out, err = running.communicate(timeout=60)
    assert running.returncode == ExitCode.MODEL_NOT_LOADED
    assert out == ""
    assert "/nowhere/model.gguf" in err


def test_a_process_from_its_ready_line_to_a_drain():
    with process("--model", str(MODEL), "--port", "0", "--json", "--threads", "1", "--log-format", "json") as running:
        assert running.stdout is not None
        ready = json.loads(running.stdout.readline())
        assert ready["event"] == "ready"
        assert ready["pid"] == running.pid
        assert ready["url"] == f"http://127.0.0.1:{ready['port']}"
        with openai.OpenAI(base_url=f"{ready['url']}/v1", api_key="none", max_retries=0) as api:
            assert [model.id for model in api.models.list()] == [ready["model"]]
            chat = [{"role": "user", "content": "Where is the crew?"}]
            stream = api.chat.completions.create(model=ready["model"], messages=chat, stream=True, max_tokens=60)
            first = next(iter(stream))
            assert first.choices[0].delta.role == "assistant"
            running.send_signal(signal.SIGTERM)
            # What runs may finish.
            reasons = [chunk.choices[0].finish_reason for chunk in stream]
            assert reasons[-1] in ("stop", "length")
        _, err = running.communicate(timeout=30)
    assert running.returncode == ExitCode.OK
    assert {"generation ended", "serving"} <= {json.loads(line)["message"] for line in err.splitlines()}
