"""What goes wrong between the chat and the world: each says what to do. Real services on loopback, the real SDK, real
files."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import TYPE_CHECKING

import pytest

from demos.chat.answering.holder import StageHolder
from demos.chat.background import Background
from demos.chat.cli import demo_settings
from demos.chat.history.worker import History
from demos.chat.viewmodel.app import AppModel
from demos.chat.viewmodel.settings import Settings
from device_sdk import Mode
from model_runtime.testing import ScriptedEngine
from tests.cloud_service.conftest import serve

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from demos.chat.viewmodel.answer import AnswerModel
    from demos.chat.viewmodel.problems import Problem

__all__ = ["serve"]

_PATIENCE = 60.0
KEY = "the-right-key-0123456789"


class Chat:
    """The whole program but its window."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        loop = asyncio.get_running_loop()
        background = Background(loop, loop.call_soon_threadsafe)
        self.history = History(folder / "history.sqlite")
        self.holder = StageHolder(lambda state: loop.call_soon_threadsafe(self.app.sides.note, state))
        self.app = AppModel(background, self.history, self.holder, settings, folder / "settings.json")
        self.troubles: list[Problem] = []
        self.app.trouble.subscribe(self.troubles.append)
        self.app.start()

    async def asked(self) -> AnswerModel:
        self.app.current.send("Who locked the gate?")
        answer = self.app.current.tree.path()[-1].answer
        async with asyncio.timeout(_PATIENCE):
            while answer.state == "streaming":  # noqa: ASYNC110 - whatever a test looks at
                await asyncio.sleep(0.01)
        return answer


@pytest.fixture
async def chat(tmp_path: Path) -> AsyncIterator[Callable[..., Chat]]:
    made: list[Chat] = []

    def make(**settings: object) -> Chat:
        made.append(Chat(tmp_path, Settings(cloud="remote", max_tokens=8, **settings)))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for each in made:
        await each.holder.close()
        each.history.close()


async def failed(chat: Chat) -> Problem:
    answer = await chat.asked()
    assert answer.state == "failed"
    assert answer.problem is not None
    assert answer.problem.remedy == "settings"
    return answer.problem


async def test_a_wrong_key(chat: Callable[..., Chat], serve) -> None:
    running = serve(ScriptedEngine(), keys={"me": KEY})
    wrong = await failed(chat(cloud_url=running.url, api_key="another", mode=Mode.ONLY_IN_CLOUD))
    assert wrong.title == "The cloud does not accept the key"
    assert "Put the right one into the settings" in wrong.text
    right = await chat(cloud_url=running.url, api_key=KEY, mode=Mode.ONLY_IN_CLOUD).asked()
    assert right.state == "whole"


@pytest.mark.parametrize(
    ("url", "title", "advice"),
    [
        ("ws://127.0.0.1:9", "The cloud cannot be reached", "Check its address in the settings"),
        ("ws://nowhere.invalid", "The cloud cannot be reached", "Check its address in the settings"),
        ("not an address", "Nobody is there to answer", "no ws:// or wss:// URL"),
        ("ws://", "Nobody is there to answer", "no ws:// or wss:// URL"),
    ],
)
async def test_a_wrong_address(chat: Callable[..., Chat], url: str, title: str, advice: str) -> None:
    problem = await failed(chat(cloud_url=url, mode=Mode.ONLY_IN_CLOUD))
    assert problem.title == title
    assert advice in problem.text


async def test_an_address_where_something_else_answers(chat: Callable[..., Chat]) -> None:
    async def web(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(web, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        problem = await failed(chat(cloud_url=f"ws://127.0.0.1:{port}", mode=Mode.ONLY_IN_CLOUD))
    assert problem.title == "The cloud cannot be reached"


async def test_a_model_that_the_service_does_not_have(chat: Callable[..., Chat], serve) -> None:
    running = serve(ScriptedEngine())
    problem = await failed(chat(cloud_url=running.url, cloud_model="llama-9", mode=Mode.ONLY_IN_CLOUD))
    assert problem.title == "The cloud runs another model or version"
    assert "llama-9" in problem.text
    assert "Leave the model of the service empty" in problem.text


async def test_with_a_wrong_key_the_device_answers_with_a_quiet_line_and_models_that_differ_are_no_fault(
    chat: Callable[..., Chat], serve
) -> None:
    running = serve(ScriptedEngine(), keys={"me": KEY})
    device = demo_settings().device_model
    mode = Mode.PREFER_IN_CLOUD  # in a split so short an answer is the device's before anybody refuses
    answer = await chat(cloud_url=running.url, api_key="another", device_model=device, mode=mode).asked()
    assert (answer.state, answer.problem) == ("whole", None)
    assert {run.source.value for run in answer.runs} == {"device"}
    [notice] = answer.notices
    assert notice.startswith("The device goes on without the cloud: ")
    assert "key" in notice
    # Another tokenizer over there: text travels.
    other = await chat(cloud_url=running.url, api_key=KEY, device_model=device, mode=mode).asked()
    assert other.state == "whole"
    assert other.report is not None
    assert other.report.cloud_tokens


async def test_a_damaged_model_file_is_told_and_the_cloud_answers_alone(
    chat: Callable[..., Chat], serve, tmp_path: Path
) -> None:
    running = serve(ScriptedEngine())
    (tmp_path / "cut.gguf").write_bytes(b"GGUF" + bytes(2_000))
    damaged = chat(cloud_url=running.url, device_model=str(tmp_path / "cut.gguf"))
    answer = await damaged.asked()
    assert answer.state == "whole"
    assert answer.notices == ["Answered in the cloud alone, as there is no model on the device"]
    [problem] = damaged.troubles
    assert problem.title == "The device's model cannot be used"
    assert "cut.gguf" in problem.text
    assert "change it in the settings" in problem.text
    assert problem.remedy == "settings"
    # Put in its place, it is there again at a click.
    damaged.app.apply(dataclasses.replace(damaged.app.settings, device_model=demo_settings().device_model))
    async with asyncio.timeout(_PATIENCE):
        while damaged.app.sides.device.phase != "ready":  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.01)


async def test_unplugged_in_the_middle_of_an_answer_which_goes_on_and_plugged_in_again(
    chat: Callable[..., Chat], serve
) -> None:
    """Through the shipped emulation of a network, before a real service."""
    running = serve(ScriptedEngine(delay=lambda _: 0.02, answer_length=10_000))
    here = chat(cloud_url=running.url, link="5g", device_model=demo_settings().device_model, mode=Mode.PREFER_IN_CLOUD)
    here.app.change(max_tokens=40)
    # Loading takes longer than a test should wait for in each question.
    first = await here.asked()
    assert first.report is not None
    assert (first.state, first.notices, first.report.device_tokens) == ("whole", [], 0)
    assert here.app.sides.can_unplug
    assert here.app.sides.cloud.emulated

    def unplug_after_five(_: object) -> None:
        if len(here.app.current.tree.path()[-1].answer.trace.arrivals) == 5 and not here.app.sides.unplugged:
            here.app.sides.toggle_plug()

    forget = here.app.current.changed.subscribe(unplug_after_five)
    cut = await here.asked()
    forget()
    assert here.app.sides.unplugged
    assert (cut.state, cut.problem) == ("whole", None)
    assert cut.report is not None
    assert 5 <= cut.report.cloud_tokens < 40
    assert cut.report.device_tokens > 0
    assert cut.report.finish_reason in ("eos", "length")
    [notice] = cut.notices
    assert notice.startswith("The device goes on without the cloud: ")
    # Nothing that was said is said again or lost.
    assert cut.report.handover_index == cut.report.cloud_tokens
    assert cut.runs[-1].stop == len(cut.text)

    alone = await here.asked()
    assert alone.report is not None
    assert (alone.state, alone.report.cloud_tokens) == ("whole", 0)
    here.app.sides.toggle_plug()
    again = await here.asked()
    assert again.report is not None
    assert (again.state, again.report.device_tokens, again.notices) == ("whole", 0, [])
