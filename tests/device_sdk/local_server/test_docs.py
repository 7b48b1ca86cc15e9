"""The page about the local server: its example runs, and it leaves nothing out."""

from __future__ import annotations

import re
from pathlib import Path

from device_sdk.local_server.extension import Extension
from device_sdk.report import Report
from model_runtime.testing import ScriptedEngine

PAGE = (Path(__file__).parents[3] / "docs/local-server.md").read_text(encoding="utf-8")


def test_the_example_runs(local, serve, capsys) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    server = local(ScriptedEngine(), cloud=serve(ScriptedEngine()).url)
    assert "http://127.0.0.1:8090/v1" in example
    names: dict[str, object] = {}
    exec(example.replace("http://127.0.0.1:8090", server.url), names)  # noqa: S102 - our own file
    names["client"].close()
    assert re.search(r"\d+ tokens from the device", capsys.readouterr().out)


def test_every_field_is_explained() -> None:
    for name in Extension.model_fields:
        assert f"`{name}`" in PAGE, name
    report = PAGE[PAGE.index("## `pd_device` in an answer") : PAGE.index("## Errors")]
    for name in re.findall(r"`([a-z_]+)`", report):
        assert name in Report.__dataclass_fields__ or name == "pd_device", name
