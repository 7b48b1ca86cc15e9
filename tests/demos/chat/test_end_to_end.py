"""The client's whole way with real models and a real cloud process, which is killed in the middle of an answer."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import TYPE_CHECKING

from demos.chat.answering.holder import StageHolder
from demos.chat.answering.setup import DeviceSetup, LocalCloud, Setup
from demos.chat.answering.states import SideState
from demos.chat.background import Background
from demos.chat.cli import demo_settings
from demos.chat.examples import bundled
from demos.chat.history.worker import History
from demos.chat.viewmodel.app import AppModel
from device_sdk import Mode

if TYPE_CHECKING:
    from pathlib import Path

_PATIENCE = 110.0


async def _until(true: object) -> None:
    async with asyncio.timeout(_PATIENCE):
        while not true():  # type: ignore[operator]  # noqa: ASYNC110 - whatever the test looks at
            await asyncio.sleep(0.01)


async def test_the_cloud_is_killed_in_the_middle_of_an_answer_which_is_finished_and_found_again(tmp_path: Path) -> None:
    loop = asyncio.get_running_loop()
    background = Background(loop, loop.call_soon_threadsafe)
    # The device begins only once the cloud is lost: so the cloud's tokens come first on any machine.
    settings = dataclasses.replace(demo_settings(), mode=Mode.PREFER_IN_CLOUD, max_tokens=48)
    history = History(tmp_path / "history.sqlite")
    holder = StageHolder(lambda state: loop.call_soon_threadsafe(app.sides.note, state))
    app = AppModel(background, history, holder, settings, tmp_path / "settings.json")
    try:
        app.start()
        example = await asyncio.to_thread(lambda: bundled()[0])
        app.ask_example(example)  # while the models load
        answer = app.current.tree.path()[-1]
        assert answer.answer.waiting
        await _until(lambda: answer.answer.trace.arrivals)
        assert app.sides.device.emulated
        assert app.sides.cloud.emulated
        assert holder.stage is not None
        assert holder.stage.cloud is not None
        await holder.stage.cloud.kill()
        await _until(lambda: answer.state != "streaming")
        report = answer.report
        assert report is not None
        assert answer.state == "whole"
        assert report.cloud_tokens
        assert report.device_tokens
        assert any("goes on without the cloud" in notice for notice in answer.answer.notices)
        await history.do(lambda _: None)

        again = AppModel(background, history, holder, settings, tmp_path / "settings.json")
        again.open(app.current.id)
        await _until(lambda: not again.current.empty)
        reopened = again.current.tree.path()[-1]
        assert (reopened.text, reopened.report) == (answer.text, report)
        assert again.current.tree.path()[0].attachments == (example.document,)

        # Its end is noticed, and it can be started again.
        await _until(lambda: app.sides.cloud.phase == "failed")
        app.sides.open_again()
        await _until(lambda: app.sides.cloud.phase == "ready")
    finally:
        await holder.close()
        history.close()
    assert holder.stage is None


async def test_a_side_that_fails_says_why_and_the_other_one_answers(tmp_path: Path) -> None:
    states: dict[str, SideState] = {}
    holder = StageHolder(lambda state: states.update({state.side: state}))
    (tmp_path / "broken.gguf").write_bytes(b"GGUF but not really")
    try:
        await holder.open(Setup(DeviceSetup(str(tmp_path / "broken.gguf")), LocalCloud(str(tmp_path / "missing.onnx"))))
        assert {side: state.phase for side, state in states.items()} == {"device": "failed", "cloud": "failed"}
        assert "broken.gguf" in states["device"].text
        assert "missing.onnx" in states["cloud"].text
        assert await holder.answering() is None
        setup = demo_settings().setup()
        await holder.open(dataclasses.replace(setup, cloud=None, link="loopback"))
        answering = await holder.answering()
        assert answering is not None
        assert (answering.device, answering.cloud) == (True, False)
        assert answering.count is not None
        assert answering.count([{"role": "user", "content": "Who?"}]) > 1
    finally:
        await holder.close()


async def test_an_emulated_network_in_front_of_an_encrypted_cloud_is_refused_in_words(tmp_path: Path) -> None:
    from demos.chat.answering.setup import RemoteCloud

    states: dict[str, SideState] = {}
    holder = StageHolder(lambda state: states.update({state.side: state}))
    try:
        await holder.open(Setup(None, RemoteCloud("wss://example.org"), "5g"))
        assert states["cloud"].phase == "failed"
        assert "ws://" in states["cloud"].text
    finally:
        await holder.close()


async def test_loading_is_stopped_at_once_and_a_later_choice_has_its_way() -> None:
    states: list[SideState] = []
    holder = StageHolder(states.append)
    setup = demo_settings().setup()
    opening = asyncio.create_task(holder.open(setup))
    await _until(lambda: any(state.under_way for state in states))
    holder.stop_loading("cloud")
    holder.stop_loading("device")
    await opening
    assert {state.side for state in states if state.phase == "stopped"} == {"device", "cloud"}
    assert await holder.answering() is None
    await holder.close()
