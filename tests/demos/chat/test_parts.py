"""Small parts: downloads, plans, figures, traces."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from demos.chat.answering.planned import plan_for, read_plan
from demos.chat.background import Background
from demos.chat.history.records import Attachment
from demos.chat.testing import report_of
from demos.chat.viewmodel import figures
from demos.chat.viewmodel.downloads import DownloadModel
from demos.chat.viewmodel.messages import MessageModel
from demos.chat.viewmodel.settings import Settings
from demos.chat.viewmodel.trace import Trace
from device_sdk import Mode, Report, Source, TextSpan
from model_runtime.errors import DiskFullError
from model_runtime.hub import DownloadProgress
from speed_controller.errors import SplitFileError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.demos.chat.conftest import Rig

PLAN = """
version = 1
[[bucket]]
route = "device"
up_to = 300
[[bucket]]
route = "split"
up_to = 4000
grant = 17
keep_ratio = 0.5
pace_ms = 40.0
[[bucket]]
route = "cloud"
"""


class Hub:
    """Gives 10 bytes a piece, as long as it is let."""

    def __init__(self) -> None:
        self.pieces = asyncio.Semaphore(0)
        self.started = 0
        self.cancelled = 0
        self.error: Exception | None = None

    async def __call__(self, spec: str, tell: Callable[[DownloadProgress], None]) -> Path:
        self.started += 1
        try:
            for piece in range(1, 11):
                await self.pieces.acquire()
                if self.error is not None:
                    raise self.error
                tell(DownloadProgress(10 * piece, 100))
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return Path("model.gguf")


async def test_a_download_is_paused_gone_on_with_cancelled_and_fails_in_words() -> None:
    hub = Hub()
    model = DownloadModel(Background(asyncio.get_running_loop(), lambda call: call()), hub)

    async def until(true: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not true():  # noqa: ASYNC110 - whatever a test looks at
                await asyncio.sleep(0.002)

    model.start("hf://a/b")
    for _ in range(3):
        hub.pieces.release()
    await until(lambda: model.fraction == 0.3)
    model.pause()
    await until(lambda: hub.cancelled == 1)
    assert (model.state, model.done_bytes) == ("paused", 30)
    model.start("hf://a/b")
    assert model.state == "running"
    await until(lambda: hub.started == 2)
    model.cancel()
    await until(lambda: hub.cancelled == 2)
    assert (model.state, model.done_bytes) == ("idle", 0)
    model.start("hf://a/b")
    hub.error = DiskFullError("hf://a/b does not fit")
    hub.pieces.release()
    await until(lambda: model.state == "failed")
    assert model.problem is not None
    assert model.problem.title == "The disk is full"
    hub.error = None
    model.start("hf://a/b")
    for _ in range(10):
        hub.pieces.release()
    await until(lambda: model.state == "done")
    assert (model.fraction, model.problem) == (1.0, None)


def test_a_plan_decides_by_the_prompts_length(tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_text(PLAN)
    config = read_plan(str(tmp_path / "plan.toml"))
    split = Settings().split()
    assert plan_for(config, 200, split)[0] is Mode.PREFER_ON_DEVICE
    mode, chosen, reason = plan_for(config, 2_000, split)
    assert (mode, chosen.grant, chosen.keep_ratio, chosen.pace.pace) == (Mode.SPLIT, 17, 0.5, 0.040)
    assert "up to 4,000 tokens (2,000 here)" in reason
    assert plan_for(config, 9_000, split)[0] is Mode.PREFER_IN_CLOUD
    with pytest.raises(SplitFileError, match="cannot be read"):
        read_plan(str(tmp_path / "missing.toml"))


async def test_a_plan_is_followed_where_split_was_chosen_and_said_in_the_answer(rig: Rig) -> None:
    path = rig.folder / "plan.toml"
    path.write_text(PLAN)
    rig.app.change(split_file=str(path))
    answer = rig.conversation.tree[await rig.asked("word " * 400)]
    assert rig.client.asked[-1].split.grant == 17
    assert "By the split configuration" in answer.answer.notices[0]
    rig.app.change(mode=Mode.ONLY_ON_DEVICE)
    await rig.asked("word " * 400)
    assert rig.client.asked[-1].mode is Mode.ONLY_ON_DEVICE
    path.write_text("version = 7")
    rig.app.change(mode=Mode.SPLIT)
    failed = rig.conversation.tree[await rig.asked("Who?")]
    assert failed.answer.problem is not None
    assert failed.answer.problem.title == "The split configuration cannot be used"


def test_figures_say_what_the_report_says() -> None:
    report = report_of(Mode.SPLIT, [Source.CLOUD] * 17 + [Source.DEVICE] * 83)
    shown = {figure.label: figure.value for figure in figures.figures(report, price_per_million=10.0)}
    assert shown["First token"] == "150 ms"
    assert shown["Speed"] == "20 tok/s"
    assert shown["From the cloud"] == "17"
    assert shown["Cloud saved"] == "83% (0.000830)"
    assert figures.route(report) == "Split: the cloud began, the device took over at token 18."
    assert figures.summary(report) == "150 ms to first token  ·  20 tok/s  ·  17 cloud + 83 device tokens"
    alone = report_of(Mode.ONLY_ON_DEVICE, [Source.DEVICE] * 3)
    assert figures.route(alone) == "On device only: the device gave the whole answer."
    assert figures.route(Report(Mode.SPLIT, "failed", 5)) == "Split: no token was given; it failed."


def test_a_trace_grows_with_progress_and_is_exact_with_the_report() -> None:
    trace = Trace()
    trace.progressed(0.1, 2, 0, 100)
    trace.progressed(0.2, 2, 64, 100)
    trace.progressed(0.3, 3, 64, 100)
    assert trace.arrivals == [0.1, 0.1, 0.3]
    assert trace.device == [(0.2, 64)]
    exact = Trace.of(report_of(Mode.SPLIT, [Source.CLOUD] * 4 + [Source.DEVICE] * 6))
    assert exact.sources == [Source.CLOUD] * 4 + [Source.DEVICE] * 6
    assert exact.handover == 4
    gap = exact.largest_gap()
    assert gap is not None
    assert gap[1] == pytest.approx(0.05)


def test_what_was_read_is_found_in_the_right_document() -> None:
    documents = (Attachment("a", "text", "alpha beta"), Attachment("b", "text", "gamma delta"))
    question = MessageModel("q", None, "user", 0.0, "Which?", documents)
    prompt = question.prompt()
    spans = tuple(
        TextSpan(2, prompt.index(word), prompt.index(word) + len(word)) for word in ("beta", "gamma delta\n\nWhi")
    )
    report = Report(Mode.SPLIT, "eos", 40, prompt_read=spans)
    assert question.read_of(0, report) == [(6, 10)]
    assert question.read_of(1, report) == [(0, 11)]
    assert question.read_of(0, Report(Mode.SPLIT, "eos", 40)) is None
