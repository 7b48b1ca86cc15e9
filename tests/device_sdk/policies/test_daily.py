"""The cap outlives the process, begins anew each day, and holds for every client that shares its file."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import pytest

from device_sdk import ConfigurationError, DailyCap, HybridClient, Mode, PaceSettings, SplitSettings
from model_runtime.testing import ScriptedEngine
from tests.device_sdk.conftest import PROMPT, per_token

SPLIT = SplitSettings(grant=12, max_grant=12, pace=PaceSettings(mode="off"))


class Calendar:
    def __init__(self) -> None:
        self.day = date(2026, 11, 21)

    def __call__(self) -> date:
        return self.day


def test_it_counts_and_begins_anew_each_day(tmp_path: Path) -> None:
    today, path = Calendar(), tmp_path / "deep" / "cap.json"
    cap = DailyCap(path, 100, today=today)
    assert cap.left() == 100
    cap.spend(30)
    assert cap.left() == 70
    cap.save()
    other = DailyCap(path, 100, today=today)
    other.spend(80)
    assert other.left() == 0
    other.save()
    assert cap.left() == 0
    today.day = date(2026, 11, 22)
    assert (cap.left(), other.left()) == (100, 100)
    assert json.loads(path.read_text()) == {"day": "2026-11-21", "cloud_tokens": 110}


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"day": "x", "cloud_tokens": 1}', '{"day": "2026-11-21", "cloud_tokens": -1}']
)
def test_a_file_that_makes_no_sense_allows_nothing(tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "cap.json"
    path.write_text(text)
    assert DailyCap(path, 100, today=Calendar()).left() == 0
    assert "no record" in caplog.text


def test_a_file_that_cannot_be_written_is_a_warning_and_the_tokens_count(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    cap = DailyCap(tmp_path / "file" / "cap.json", 100, today=Calendar())
    cap.spend(40)
    cap.save()
    assert "could not be written" in caplog.text


def test_a_negative_cap_is_none() -> None:
    with pytest.raises(ConfigurationError, match="at least 0"):
        DailyCap("cap.json", -1)


async def test_a_client_keeps_to_it_and_goes_on_alone(serve, own_answer, tmp_path: Path) -> None:
    running = serve(ScriptedEngine())
    cap = DailyCap(tmp_path / "cap.json", 20, today=Calendar())
    phone = ScriptedEngine(delay=per_token(0.002))
    reports = []
    async with HybridClient(device=phone, cloud=running.url, split=SPLIT, daily_cap=cap) as client:
        for _ in range(3):
            answer = await client.generate(PROMPT, max_tokens=30)
            assert answer.token_ids == own_answer(count=30)
            reports.append(answer.report)
    assert [report.cloud_tokens for report in reports] == [12, 8, 0]
    assert reports[2].mode is Mode.ONLY_ON_DEVICE
    assert "used up" in reports[2].route_reason
    assert json.loads((tmp_path / "cap.json").read_text())["cloud_tokens"] == 20
