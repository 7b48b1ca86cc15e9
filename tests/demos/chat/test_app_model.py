"""The program without a screen: list, documents, settings, comparison, files."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import stat
from typing import TYPE_CHECKING

import pytest

from demos.chat import preferences
from demos.chat.answering.states import SideState
from demos.chat.history.records import Attachment
from demos.chat.history.store import Store
from demos.chat.testing import Script
from demos.chat.viewmodel.app import PASTED_DOCUMENT
from demos.chat.viewmodel.settings import Settings
from device_sdk import Mode
from speed_controller.errors import SettingError

if TYPE_CHECKING:
    from pathlib import Path

    from tests.demos.chat.conftest import Rig


async def test_the_list_follows_what_is_written_here_and_in_another_window(rig: Rig) -> None:
    rig.app.start()
    await rig.asked("Who?")
    await rig.until(lambda: [found.title for found in rig.app.library.summaries] == ["Who?"])
    other = Store(rig.folder / "history.sqlite")
    other.create("theirs", "From another window")
    other.close()
    rig.app.library.look()
    await rig.until(lambda: len(rig.app.library.summaries) == 2)
    rig.app.library.search("anoth")
    await rig.until(lambda: [found.id for found in rig.app.library.summaries] == ["theirs"])


async def test_renaming_pinning_and_deleting(rig: Rig) -> None:
    await rig.asked("Who?")
    id_ = rig.conversation.id
    rig.app.library.rename(id_, "  The   gate ")
    rig.app.library.pin(id_, True)
    await rig.until(lambda: [(s.title, s.pinned) for s in rig.app.library.summaries] == [("The gate", True)])
    assert rig.conversation.title == "The gate"
    rig.app.library.delete(id_)
    await rig.until(lambda: not rig.app.library.summaries)
    assert rig.conversation.empty
    assert rig.conversation.id != id_


async def test_deleting_a_conversation_that_is_being_answered_stops_it(rig: Rig) -> None:
    rig.client.script.hold_at = 3
    rig.conversation.send("Who?")
    await rig.until(lambda: rig.client.asked)
    id_ = rig.conversation.id
    rig.app.new_chat()
    rig.app.library.delete(id_)
    await rig.until(lambda: rig.client.cancelled == 1)
    await rig.written()
    assert not rig.troubles


async def test_a_branch_is_a_conversation_of_its_own(rig: Rig) -> None:
    first = await rig.asked("Who?")
    await rig.asked("When?")
    original = rig.conversation.id
    rig.app.branch(first)
    await rig.until(lambda: rig.conversation.id != original)
    assert [message.text for message in rig.conversation.tree.path()] == ["Who?", rig.client.script.text]
    await rig.asked("Where?")
    rig.app.open(original)
    await rig.until(lambda: rig.conversation.id == original)
    assert [message.text for message in rig.conversation.tree.path()][::2] == ["Who?", "When?"]


async def test_a_comparison_asks_what_is_missing_one_after_the_other(rig: Rig) -> None:
    answer = await rig.asked("Who?")
    comparison = rig.app.compare(answer)
    assert comparison is not None
    ended: list[None] = []
    comparison.ended.subscribe(ended.append)
    comparison.start()
    await rig.until(lambda: ended)
    assert [asked.mode for asked in rig.client.asked] == [Mode.SPLIT, Mode.ONLY_ON_DEVICE, Mode.ONLY_IN_CLOUD]
    assert [column.answer.state for column in comparison.columns] == ["whole"] * 3
    assert [column.answer.report.mode for column in comparison.columns if column.answer.report] == [
        Mode.ONLY_ON_DEVICE,
        Mode.ONLY_IN_CLOUD,
        Mode.SPLIT,
    ]
    # It leaves the conversation alone.
    assert len(rig.conversation.tree) == 2


async def test_a_comparison_that_is_left_stops_what_runs_and_starts_nothing_more(rig: Rig) -> None:
    answer = await rig.asked("Who?")
    rig.client.script = Script(hold_at=2)
    comparison = rig.app.compare(answer)
    assert comparison is not None
    comparison.start()
    await rig.until(lambda: comparison.columns[0].answer.text)
    comparison.stop()
    await rig.until(lambda: rig.client.cancelled == 1)
    await asyncio.sleep(0.02)
    assert [column.answer.state for column in comparison.columns] == ["stopped", "streaming", "whole"]
    assert len(rig.client.asked) == 2


async def test_files_are_attached_and_what_cannot_be_is_told(rig: Rig, tmp_path: Path) -> None:
    good, bad = tmp_path / "a.md", tmp_path / "b.bin"
    good.write_text("# Log", encoding="utf-8")
    bad.write_bytes(b"\0\1\2")
    rig.app.attach([good, bad])
    await rig.until(lambda: rig.conversation.pending and rig.troubles)
    assert rig.conversation.pending[0].kind == "markdown"
    assert "not a text file" in rig.troubles[0].text


async def test_a_long_paste_becomes_a_document_and_a_short_one_stays_text(rig: Rig) -> None:
    assert not rig.app.paste("short")
    assert rig.app.paste("word " * PASTED_DOCUMENT)
    assert [item.name for item in rig.conversation.pending] == ["Pasted text 1"]


async def test_export_and_import(rig: Rig, tmp_path: Path) -> None:
    await rig.asked("Who?")
    await rig.written()
    said: list[str] = []
    rig.app.said.subscribe(said.append)
    rig.app.export(rig.conversation.id, tmp_path / "a.json")
    rig.app.export(rig.conversation.id, tmp_path / "a.md")
    await rig.until(lambda: len(said) == 2)
    assert "## You" in (tmp_path / "a.md").read_text(encoding="utf-8")
    rig.app.import_(tmp_path / "a.json")
    await rig.until(lambda: len(rig.app.library.summaries) == 2)
    rig.app.import_(tmp_path / "a.md")
    rig.app.import_(tmp_path / "missing.json")
    await rig.until(lambda: len(rig.troubles) == 2)
    assert {problem.title for problem in rig.troubles} == {"This cannot be imported", "The file cannot be used"}


async def test_settings_are_checked_saved_privately_and_reopen_the_sides_only_where_they_must(rig: Rig) -> None:
    rig.app.start()
    await rig.until(lambda: rig.holder.setups)
    with pytest.raises(SettingError, match="keep_ratio"):
        rig.app.change(keep_ratio=1.5)
    assert rig.app.settings == Settings()
    rig.app.change(theme="dark", api_key="secret", pace_ms=80.0)
    path = rig.folder / "settings.json"
    await rig.until(path.exists)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert preferences.load(path, Settings()) == (rig.app.settings, None)
    assert len(rig.holder.setups) == 1
    rig.app.change(device_model="other.gguf")
    await rig.until(lambda: len(rig.holder.setups) == 2)
    assert rig.holder.setups[-1].device is not None


def test_a_broken_settings_file_gives_the_defaults_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "settings.json"
    path.write_text(json.dumps({"font_size": "large"}))
    settings, complaint = preferences.load(path, Settings())
    assert settings == Settings()
    assert complaint is not None
    assert "font_size" in complaint


async def test_a_side_that_fails_is_told_with_what_to_do(rig: Rig) -> None:
    rig.app.start()
    await rig.until(lambda: rig.app.sides.device.phase == "ready")
    rig.app.sides.note(SideState("device", "failed", text="model.gguf is damaged: load it down again"))
    [problem] = rig.troubles
    assert problem.title == "The device's model cannot be used"
    assert problem.remedy == "settings"
    rig.app.sides.open_again()
    await rig.until(lambda: rig.app.sides.device.phase == "ready")
    assert len(rig.holder.setups) == 2


async def test_unplugging_reaches_the_stage_and_shows(rig: Rig) -> None:
    rig.app.change(cloud="remote", cloud_url="ws://127.0.0.1:1")
    await rig.until(lambda: rig.app.sides.can_unplug)
    rig.app.sides.unplug(True)
    await rig.until(lambda: rig.holder.unplugged == [True])
    assert rig.app.sides.unplugged


async def test_a_history_that_cannot_be_written_is_told_once_and_the_chat_goes_on(rig: Rig) -> None:
    (rig.folder / "history.sqlite").write_bytes(b"no database " * 100)
    answer = rig.conversation.tree[await rig.asked("Who?")]
    assert answer.state == "whole"
    await rig.asked("And then?")
    assert [problem.title for problem in rig.troubles] == ["The history is not available"]
    assert "Move it away" in rig.troubles[0].text


async def test_on_a_full_disk_the_chat_goes_on_and_is_saved_whole_once_there_is_room(rig: Rig) -> None:
    said: list[str] = []
    rig.app.said.subscribe(said.append)
    await rig.asked("Who?")
    await rig.written()
    # SQLite's own way to have a full disk.
    await rig.history.do(lambda store: store._db.execute("PRAGMA max_page_count = 1"))
    rig.conversation.attach(Attachment("log.txt", "text", "412 Mira Nagy locked the gate.\n" * 2_000))
    answer = rig.conversation.tree[await rig.asked("And then?")]
    await rig.until(lambda: rig.troubles)
    assert answer.state == "whole"
    assert rig.troubles[0].title == "The disk is full: this is not being saved"
    assert "Free some space" in rig.troubles[0].text
    rig.app.library.look()
    await rig.written()
    assert len(rig.troubles) == 1
    await rig.history.do(lambda store: store._db.execute("PRAGMA max_page_count = 100000"))
    rig.app.library.look()
    await rig.until(lambda: said)
    assert said == ["Everything is saved again"]
    stored = await rig.history.do(lambda store: store.load(rig.conversation.id))
    assert [message.text for message in stored.messages][2:] == ["And then?", answer.text]
    assert stored.messages[2].attachments[0].name == "log.txt"
    assert stored.messages[3].details.report == answer.report


async def test_a_conversation_deleted_in_another_window_is_not_brought_back(rig: Rig) -> None:
    await rig.asked("Who?")
    await rig.written()  # what is not there yet cannot be deleted
    other = Store(rig.folder / "history.sqlite")
    other.delete(rig.conversation.id)
    other.close()
    answer = rig.conversation.tree[await rig.asked("And then?")]
    assert answer.state == "whole"
    await rig.until(lambda: rig.troubles)
    assert "deleted in another window" in rig.troubles[0].text
    rig.app.library.look()
    await rig.written()
    assert await rig.history.do(lambda store: store.conversations()) == []


async def test_files_that_do_not_fit_on_the_disk_are_told(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "a.json")

    await rig.asked("Who?")
    await rig.written()
    monkeypatch.setattr("pathlib.Path.write_text", full)
    rig.app.export(rig.conversation.id, rig.folder / "a.json")
    await rig.until(lambda: rig.troubles)
    assert rig.troubles[0].title == "The disk is full"
    assert "Free some space" in rig.troubles[0].text
    monkeypatch.setattr(preferences, "save", full)
    rig.app.change(theme="dark")
    await rig.until(lambda: len(rig.troubles) == 2)
    assert rig.troubles[1].title == "The disk is full"
