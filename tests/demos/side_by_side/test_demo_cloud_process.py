"""The demo's hold on its cloud process, with small stand-in processes that behave well, badly or not at all."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from typing import TYPE_CHECKING

import pytest

from demos.side_by_side.cloud_process import CloudProcess, CloudSettings
from demos.side_by_side.errors import CloudError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

LISTENS = """
import json, os, signal, socket, sys, time
port = int(sys.argv[sys.argv.index("--port") + 1])
server = socket.create_server(("127.0.0.1", port))
print(json.dumps({"event": "ready", "port": server.getsockname()[1]}), flush=True)
while True:
    time.sleep(60)
"""
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + LISTENS


def settings(tmp_path: Path, **changes: float) -> CloudSettings:
    return CloudSettings("model.gguf", tmp_path / "logs" / "cloud.log", emulate="gpu", **changes)  # type: ignore[arg-type]


def process(tmp_path: Path, code: str, **changes: float) -> CloudProcess:
    return CloudProcess(settings(tmp_path, **changes), (sys.executable, "-c", code))


def accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


async def test_it_is_ready_inside_the_block_and_gone_after_it(tmp_path: Path) -> None:
    async with process(tmp_path, LISTENS) as cloud:
        assert cloud.running
        assert accepts(cloud.port)
    assert not cloud.running
    assert not accepts(cloud.port)


async def test_it_comes_back_at_the_same_port_after_a_kill(tmp_path: Path) -> None:
    async with process(tmp_path, LISTENS) as cloud:
        port = cloud.port
        await cloud.kill()
        assert not cloud.running
        assert not accepts(port)
        await cloud.start()
        assert cloud.port == port
        assert accepts(port)


async def test_it_is_gone_even_when_the_block_fails(tmp_path: Path) -> None:
    cloud = process(tmp_path, LISTENS)
    with pytest.raises(KeyError):
        async with cloud:
            raise KeyError
    assert not accepts(cloud.port)


async def test_a_process_that_ignores_sigterm_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("demos.side_by_side.cloud_process.GRACE", 0.2)
    async with process(tmp_path, STUBBORN) as cloud:
        port = cloud.port
    assert not accepts(port)


async def test_it_does_not_hear_the_terminals_ctrl_c(tmp_path: Path) -> None:
    code = f"import os; assert os.getsid(0) != {os.getsid(0)}\n" + LISTENS
    async with process(tmp_path, code) as cloud:
        assert cloud.running


async def test_the_callers_variables_for_another_service_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PD_CLOUD_PORT", "1")
    code = "import os; assert 'PD_CLOUD_PORT' not in os.environ\n" + LISTENS
    async with process(tmp_path, code) as cloud:
        assert cloud.running


@pytest.mark.parametrize(("code", "error"), [(2, UsageError), (3, UsageError), (1, CloudError), (4, CloudError)])
async def test_a_process_that_dies_is_reported_in_one_line_with_its_log(
    tmp_path: Path, code: int, error: type[Exception]
) -> None:
    cloud = process(tmp_path, f"import sys; print('no such\\nmodel', file=sys.stderr); sys.exit({code})")
    with pytest.raises(error, match=r"no such / model \(log: .*cloud\.log\)") as caught:
        await cloud.start()
    assert "\n" not in str(caught.value)


async def test_a_process_killed_from_outside_while_it_starts_is_reported(tmp_path: Path) -> None:
    cloud = process(tmp_path, f"import os; os.kill(os.getpid(), {int(signal.SIGKILL)})")
    with pytest.raises(CloudError, match=r"code -9 .* said nothing"):
        await cloud.start()


async def test_a_process_that_is_never_ready_is_given_up_and_ended(tmp_path: Path) -> None:
    marker = tmp_path / "pid"
    command = ("sh", "-c", f"echo $$ > {marker}; exec sleep 60")
    with pytest.raises(CloudError, match=r"not ready within 1 s"):
        await CloudProcess(settings(tmp_path, start_timeout=1), command).start()
    with pytest.raises(ProcessLookupError):
        os.kill(int(marker.read_text()), 0)


PARENT = """
import asyncio, sys
from pathlib import Path
from demos.side_by_side.cloud_process import CloudProcess, CloudSettings
async def main():
    command = (sys.executable, "-m", "demos.side_by_side.leash", "service_of_a_test")
    async with CloudProcess(CloudSettings("model.gguf", Path(sys.argv[1]) / "cloud.log"), command) as cloud:
        print(cloud.port, flush=True)
        await asyncio.sleep(60)
asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
async def test_killed_with_no_time_for_anything_the_parent_takes_the_service_with_it(tmp_path: Path) -> None:
    (tmp_path / "service_of_a_test.py").write_text(LISTENS)
    search = os.pathsep.join([str(tmp_path), *sys.path])
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PARENT, str(tmp_path), stdout=asyncio.subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": search},
    )  # fmt: skip
    try:
        assert parent.stdout is not None
        async with asyncio.timeout(30):
            port = int(await parent.stdout.readline())
            assert accepts(port)
    finally:
        parent.kill()
        await parent.wait()
    async with asyncio.timeout(10):
        while accepts(port):  # noqa: ASYNC110 - another process, which sets no event
            await asyncio.sleep(0.02)


def test_settings_become_flags_of_pd_cloud(tmp_path: Path) -> None:
    arguments = settings(tmp_path, threads=3).arguments(0)
    assert arguments == [
        "serve", "--json", "--model", "model.gguf", "--engine", "auto", "--port", "0", "--threads", "3",
        "--prefix-cache", "off", "--emulate", "gpu",
    ]  # fmt: skip
