"""`pd-local` as its user meets it: a real process, a real model, real signals."""

from __future__ import annotations

import json
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

from device_sdk.local_server.cli import ExitCode, main
from device_sdk.local_server.extension import ModeName
from device_sdk.local_server.settings import SECRET_FIELDS, LocalSettings
from device_sdk.settings import Mode

ROOT = Path(__file__).parents[3]
MODEL = ROOT / "demos/models/device/model.onnx"


@contextmanager
def process(*arguments: str, **variables: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "device_sdk.local_server", "serve", *arguments]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PD_LOCAL_")}
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**environment, **variables},
        cwd=ROOT,
    ) as running:
        try:
            yield running
        finally:
            running.kill()


def test_help_explains_every_setting(capsys) -> None:
    with pytest.raises(SystemExit) as left:
        main(["serve", "--help"])
    assert left.value.code == 0
    text = capsys.readouterr().out
    for name, field in LocalSettings.model_fields.items():
        assert field.description
        assert (f"--{name.replace('_', '-')}" in text) == (name not in SECRET_FIELDS)
    assert "exit codes" in text


def test_the_modes_are_the_sdk_s() -> None:
    assert set(ModeName.__args__) == {mode.value for mode in Mode}


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([], "device: Field required"),
        (["--device", "m", "--port", "x"], "port: Input should be a valid integer"),
        (["--device", "m", "--host", "192.168.0.1"], "no key is set"),
        (["--device", "m", "--emulate", "abacus"], "emulate: Value error, no hardware profile 'abacus'"),
        (["--device", "m", "--mode", "SPLIT"], "SPLIT needs a cloud service"),
        (["--device", "m", "--split", "/nowhere.toml"], "cannot read the split configuration /nowhere.toml"),
        (["--device", "m", "--cloud", "gopher://x"], "gopher"),
        (["--device", "m", "--config", "/nowhere.toml"], "no configuration file at /nowhere.toml"),
    ],
)
def test_settings_that_are_not_usable(capsys, arguments, named) -> None:
    assert main(["serve", *arguments]) == ExitCode.BAD_SETTINGS
    assert named in capsys.readouterr().err


def test_a_port_that_is_taken(capsys) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["serve", "--device", "m", "--port", str(port)]) == ExitCode.CANNOT_LISTEN
    assert f"cannot listen on 127.0.0.1 port {port}" in capsys.readouterr().err


def test_a_model_that_is_not_there() -> None:
    with process("--device", "/nowhere/model.gguf", "--port", "0") as running:
        out, err = running.communicate(timeout=60)
    assert running.returncode == ExitCode.MODEL_NOT_LOADED
    assert out == ""
    assert "/nowhere/model.gguf" in err


def test_a_process_from_its_ready_line_to_its_end(tmp_path) -> None:
    config = tmp_path / "local.toml"
    config.write_text(f'device = "{MODEL}"\nport = 0\nthreads = 1\naliases = ["gpt-4o"]\n')
    with process("--config", str(config), "--json", PD_LOCAL_API_KEY="secret") as running:
        assert running.stdout is not None
        ready = json.loads(running.stdout.readline())
        assert (ready["event"], ready["pid"]) == ("ready", running.pid)
        log = "Dock log 12\n412 Mira Nagy locked the north gate.\n413 Ivo Lund painted the crane.\n"
        chat = [{"role": "user", "content": f"{log}\nWho painted the crane?"}]
        with openai.OpenAI(base_url=f"{ready['url']}/v1", api_key="secret", max_retries=0) as api:
            answer = api.chat.completions.create(model="gpt-4o", messages=chat, temperature=0, max_tokens=8)
            assert answer.usage.completion_tokens > 0
            stream = api.chat.completions.create(model="gpt-4o", messages=chat, stream=True, max_tokens=12)
            next(iter(stream))
            running.send_signal(signal.SIGTERM)
            # What runs may finish.
            assert [chunk.choices[0].finish_reason for chunk in stream][-1] in ("stop", "length")
        assert running.wait(timeout=30) == ExitCode.OK


def test_without_the_extra_it_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['fastapi'] = None\nfrom device_sdk.local_server.__main__ import main\nsys.exit(main())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 2
    assert "install pd-device[local]" in done.stderr
