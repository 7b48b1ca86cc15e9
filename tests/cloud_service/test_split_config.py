"""A service that was given a split configuration: devices may ask for no larger grants than it allows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cloud_service.desk import Bounds
from cloud_service.settings import load_settings
from http_api.settings import SettingsError
from model_runtime.testing import ScriptedEngine
from speed_controller.plan_file import read_split_config
from wire_protocol.messages import Error, Extend, Finished, Generate, Rejected

PLAN = """
version = 1
max_grant = 20
[[bucket]]
up_to = 64
route = "split"
grant = 8
[[bucket]]
route = "{route}"
"""


def bounds(route: str) -> Bounds:
    return Bounds(8192, 8191, 4096, read_split_config(PLAN.format(route=route)))


def test_the_grant_is_bounded_but_where_the_cloud_answers_alone() -> None:
    assert bounds("cloud").unplanned(64, 20) is None
    assert "allows at most 20" in str(bounds("cloud").unplanned(64, 21))
    assert bounds("cloud").unplanned(65, 4000) is None
    assert bounds("device").unplanned(65, 21) is not None
    assert Bounds(8192, 8191, 4096).unplanned(65, 4000) is None


def test_an_extension_is_bounded_where_no_prompt_is_the_clouds() -> None:
    assert bounds("device").max_extension == 20
    assert bounds("cloud").max_extension == 4096
    assert Bounds(8192, 8191, 4096).max_extension == 4096


async def test_a_device_that_asks_for_more_is_rejected(
    serve: Callable[..., Any], device: Callable[..., Any], tmp_path: Path
) -> None:
    path = tmp_path / "split.toml"
    path.write_text(PLAN.format(route="device"))
    running = serve(ScriptedEngine(answer_length=200), split_config=path)
    async with device(running) as client:
        await client.send(Generate("a", 21, prompt=(1, 2, 3)))
        (answer,) = await client.until_terminal("a")
        assert isinstance(answer, Rejected)
        assert (answer.reason, "split configuration" in answer.message) == ("too_long", True)
        await client.send(Generate("b", 8, prompt=(1, 2, 3)))
        await client.send(Extend("b", 21))
        last = (await client.until_terminal("b"))[-1]
        assert isinstance(last, Error | Finished)
        assert not isinstance(last, Error) or "at most 20" in last.message


def test_a_configuration_that_cannot_be_used_stops_the_service(tmp_path: Path) -> None:
    path = tmp_path / "split.toml"
    with pytest.raises(SettingsError, match=r"split_config: .*cannot read"):
        load_settings(None, {"model": "m", "split_config": path})
    path.write_text("version = 1\n")
    with pytest.raises(SettingsError, match=r"split_config: .*`bucket`"):
        load_settings(None, {"model": "m", "split_config": path})
