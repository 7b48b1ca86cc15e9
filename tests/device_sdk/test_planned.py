"""A client that follows a split configuration."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from device_sdk import ConfigurationError, HybridClient, Mode
from model_runtime.testing import ScriptedEngine
from speed_controller.plan_file import read_split_config
from tests.cloud_service.conftest import Running
from tests.device_sdk.conftest import PROMPT, per_token

PLAN = """
version = 1
max_grant = 12
[[bucket]]
up_to = {device}
route = "device"
pace_ms = 10
[[bucket]]
up_to = {split}
route = "split"
grant = 12
pace_ms = 12
[[bucket]]
route = "cloud"
pace_ms = 10
"""


def tokens() -> int:
    return len(ScriptedEngine().tokenizer.render_chat([{"role": "user", "content": PROMPT}]))


@pytest.mark.parametrize(
    ("device", "split", "mode", "cloud_tokens"),
    [(0, 0, Mode.SPLIT, 12), (1, 0, Mode.PREFER_ON_DEVICE, 0), (-2, -1, Mode.PREFER_IN_CLOUD, 30)],
    ids=["split", "device", "cloud"],
)
async def test_a_prompt_is_answered_as_its_bucket_says(
    serve: Callable[..., Running], tmp_path: Path, device: int, split: int, mode: Mode, cloud_tokens: int
) -> None:
    """`device` and `split`: where the buckets end, from the prompt's length on (0: just below it, 1: above)."""
    running = serve(ScriptedEngine())
    ends = {"device": tokens() + device - (device <= 0), "split": tokens() + split + 2 * (split == 0)}
    path = tmp_path / "split.toml"
    path.write_text(PLAN.format(**ends))
    phone = ScriptedEngine(delay=per_token(0.002))
    async with HybridClient(device=phone, cloud=running.url, split=path) as client:
        answer = await client.generate(PROMPT, max_tokens=30)
    assert answer.report.mode is mode
    assert answer.report.cloud_tokens == cloud_tokens
    assert answer.report.pace_ms == pytest.approx(12 if mode is Mode.SPLIT else 10)


async def test_another_mode_beats_the_route_but_not_the_pace(serve: Callable[..., Running]) -> None:
    running = serve(ScriptedEngine())
    plan = read_split_config(PLAN.format(device=100_000, split=200_000))
    async with HybridClient(device=ScriptedEngine(), cloud=running.url, split=plan) as client:
        answer = await client.generate(PROMPT, max_tokens=20, mode=Mode.ONLY_IN_CLOUD)
    assert (answer.report.cloud_tokens, answer.report.device_tokens) == (20, 0)
    assert answer.report.pace_ms == pytest.approx(10)


def test_a_file_that_cannot_be_used_is_a_configuration_error(tmp_path: Path) -> None:
    path = tmp_path / "split.toml"
    with pytest.raises(ConfigurationError, match="cannot read the split configuration"):
        HybridClient(device=ScriptedEngine(), cloud="ws://127.0.0.1:1", split=path)
    path.write_text(PLAN.format(device=5, split=9).replace("\ngrant = 12", "\ngrannt = 12"))
    with pytest.raises(ConfigurationError, match=r"split\.toml: .*unknown field `grannt`"):
        HybridClient(device=ScriptedEngine(), cloud="ws://127.0.0.1:1", split=str(path))
