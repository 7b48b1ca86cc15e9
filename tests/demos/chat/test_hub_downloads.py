"""Models from the hub, by its real client from a real server on loopback: progress, pause, resume, cancel, and what
goes wrong."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from demos.chat.answering.downloads import download
from demos.chat.background import Background
from demos.chat.viewmodel.downloads import DownloadModel
from model_runtime.hub import cached
from tests.hub_server import WEIGHTS, Hub, serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SPEC = "hf://owner/model"
_PATIENCE = 20.0


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    with serving(Hub({"model.gguf": WEIGHTS})) as hub:
        # As the environment would set them: where the hub is, where models go, and nobody logged in.
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
        template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", "/nonexistent/token")
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield hub


@pytest.fixture
async def model() -> DownloadModel:
    loop = asyncio.get_running_loop()
    # Progress is told in the download's thread.
    return DownloadModel(Background(loop, loop.call_soon_threadsafe), download)


async def until(true: Callable[[], object]) -> None:
    async with asyncio.timeout(_PATIENCE):
        while not true():  # noqa: ASYNC110 - whatever a test looks at
            await asyncio.sleep(0.005)


async def test_it_is_paused_in_the_middle_and_goes_on_from_there(hub: Hub, model: DownloadModel) -> None:
    hub.hang_after = 2_000_000
    seen: list[float] = []
    model.changed.subscribe(lambda _: seen.append(model.fraction))
    model.start(SPEC)
    await until(lambda: model.done_bytes > 1_000_000)
    assert (model.state, model.total_bytes) == ("running", len(WEIGHTS))
    model.pause()
    assert model.state == "paused"
    there = model.done_bytes
    hub.over.set()
    hub.hang_after = None
    await asyncio.sleep(0.05)
    assert (model.state, model.done_bytes) == ("paused", there)  # nothing comes any more
    model.start(SPEC)
    await until(lambda: model.state == "done")
    assert model.fraction == 1.0
    assert seen == sorted(seen)
    # The second request asked for the rest only.
    assert [name for name, _ in hub.gets] == ["model.gguf"] * 2
    assert hub.gets[-1][1] > 1_000_000
    found = cached(SPEC)
    assert found is not None
    assert found.read_bytes() == WEIGHTS


async def test_cancelled_it_says_nothing_more_and_what_came_is_kept(hub: Hub, model: DownloadModel) -> None:
    hub.hang_after = 2_000_000
    model.start(SPEC)
    await until(lambda: model.done_bytes > 1_000_000)
    model.cancel()
    assert (model.state, model.done_bytes, model.fraction) == ("idle", 0, 0.0)
    await asyncio.sleep(0.2)
    assert (model.state, model.problem) == ("idle", None)
    assert cached(SPEC) is None
    hub.over.set()
    hub.hang_after = None
    model.start(SPEC)
    await until(lambda: model.state == "done")
    assert hub.gets[-1][1] > 1_000_000


async def test_a_model_that_is_here_is_only_looked_for_again(hub: Hub, model: DownloadModel) -> None:
    for _ in range(2):
        model.start(SPEC)
        await until(lambda: model.state == "done")
    assert len(hub.gets) == 1


@pytest.mark.parametrize(
    ("status", "code", "title", "advice"),
    [
        (401, "RepoNotFound", "does not let you have this model", "log in with a token"),
        (404, "RevisionNotFound", "is not there", "check repository"),
        (500, "", "could not be downloaded", "what has arrived is kept"),
    ],
)
async def test_a_refusal_says_what_to_do(
    hub: Hub, model: DownloadModel, status: int, code: str, title: str, advice: str
) -> None:
    hub.refuse = (status, code)
    model.start(SPEC)
    await until(lambda: model.state == "failed")
    assert model.problem is not None
    assert title in model.problem.title
    assert advice.lower() in model.problem.text.lower()
    hub.refuse = None
    model.start(SPEC)
    await until(lambda: model.state == "done")
    assert model.problem is None


async def test_without_a_hub_it_says_so_and_a_disk_that_is_too_small_too(
    hub: Hub, model: DownloadModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    from model_runtime import download as transfer

    usage = type(transfer.shutil.disk_usage("."))
    monkeypatch.setattr(transfer.shutil, "disk_usage", lambda _: usage(10**9, 10**9, 1000))
    model.start(SPEC)
    await until(lambda: model.state == "failed")
    assert model.problem is not None
    assert model.problem.title == "The disk is full"
    assert "Free some space" in model.problem.text
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    model.start(SPEC)
    await until(lambda: model.state == "failed")
    assert model.problem.title == "The model could not be downloaded"
