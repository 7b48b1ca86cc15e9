"""The history: what is written is read, by this process, another one, and the next one after a crash."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from demos.chat.history import exchange
from demos.chat.history.errors import (
    BadImportError,
    HistoryAccessError,
    HistoryDamagedError,
    HistoryError,
    HistoryFullError,
    HistoryNewerError,
)
from demos.chat.history.records import Attachment, Conversation, Details, Message, Run, Summary
from demos.chat.history.schema import MIGRATIONS
from demos.chat.history.store import ABANDONED_AFTER_S, Store
from device_sdk import Mode, Report, Source, Timeline

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

REPORT = Report(
    Mode.SPLIT, "eos", 12, ttft_ms=150.0, cloud_tokens=1, device_tokens=1, timeline=Timeline((0.1,), (0.2,))
)


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> Iterator[Store]:
    store = Store(tmp_path / "new" / "history.sqlite", clock)
    yield store
    store.close()


def question(id_: str, text: str, parent: str | None = None, **more: object) -> Message:
    return Message(id_, parent, "user", text, created_at=1_000_000.0, **more)  # type: ignore[arg-type]


def streaming(id_: str, parent: str) -> Message:
    return Message(id_, parent, "assistant", "", "streaming", created_at=1_000_000.0)


def test_everything_about_a_message_is_kept(store: Store) -> None:
    document = Attachment("log.md", "markdown", "412 the gate\n" * 3)
    details = Details((Run(Source.CLOUD, 0, 3), Run(Source.DEVICE, 3, 7)), REPORT, ("the link was lost",), None)
    store.create("c", "Gate")
    store.add("c", question("q", "Who?", attachments=(document,)))
    store.add("c", streaming("a", "q"))
    store.finish(Message("a", "q", "assistant", "The cat", "whole", details=details, created_at=1_000_000.0))
    loaded = store.load("c")
    assert loaded.leaf == "a"
    assert loaded.messages[0] == question("q", "Who?", attachments=(document,))
    assert loaded.messages[1].details == details


def test_an_answer_that_a_crash_cut_off_keeps_every_token_that_was_appended(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "history.sqlite"
    program = f"""
import os, signal
from pathlib import Path
from demos.chat.history.records import Message
from demos.chat.history.store import Store
from device_sdk import Source
store = Store(Path({str(path)!r}), lambda: 1_000_000.0)
store.create("c", "t")
store.add("c", Message("q", None, "user", "?", created_at=1_000_000.0))
store.add("c", Message("a", "q", "assistant", "", "streaming", created_at=1_000_000.0))
for i in range(50):
    store.append("a", i, Source.CLOUD if i < 20 else Source.DEVICE, f"w{{i}} ")
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -signal.SIGKILL
    store = Store(path, clock)
    expected = "".join(f"w{i} " for i in range(50))
    answer = store.load("c").messages[1]
    assert (answer.text, answer.state) == (expected, "streaming")  # it might still be another window's
    clock.now += ABANDONED_AFTER_S + 1
    answer = store.load("c").messages[1]
    assert (answer.text, answer.state) == (expected, "cut_off")
    assert [(run.source, expected[run.start : run.stop][:4]) for run in answer.details.runs] == [
        (Source.CLOUD, "w0 w"),
        (Source.DEVICE, "w20 "),
    ]
    store.close()


def test_two_processes_write_at_once_and_nothing_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite"
    program = """
import sys
from pathlib import Path
from demos.chat.history.records import Message
from demos.chat.history.store import Store
store, me = Store(Path(sys.argv[1])), sys.argv[2]
for i in range(60):
    store.create(f"{me}-{i}", f"{me} {i}")
    store.add(f"{me}-{i}", Message(f"{me}-{i}-q", None, "user", f"hello {i}"))
"""
    processes = [subprocess.Popen([sys.executable, "-c", program, str(path), name]) for name in ("one", "two")]
    assert [process.wait(timeout=60) for process in processes] == [0, 0]
    store = Store(path)
    assert len(store.conversations()) == 120
    with sqlite3.connect(path) as raw:
        assert raw.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    raw.close()
    store.close()


def test_another_windows_write_is_noticed(store: Store, tmp_path: Path) -> None:
    other = Store(tmp_path / "new" / "history.sqlite")
    before = store.version()
    store.create("mine", "t")
    assert store.version() == before
    other.create("theirs", "t")
    assert store.version() != before
    other.close()


def test_search_finds_beginnings_of_words_in_messages_and_titles_and_follows_every_change(store: Store) -> None:
    store.create("c", "Ärger im Hafen")
    store.create("d", "other")
    store.add("c", question("q", 'Who painted the "crane" (north)?'))
    assert [found.id for found in store.conversations("paint cra")] == ["c"]
    assert "crane" in store.conversations("paint")[0].snippet
    assert [found.id for found in store.conversations("hafen")] == ["c"]
    assert store.conversations('"* OR NEAR(') == []
    store.add("c", streaming("a", "q"))
    store.finish(Message("a", "q", "assistant", "Mira Nagy did.", created_at=1_000_000.0))
    assert [found.id for found in store.conversations("nagy")] == ["c"]
    store.delete("c")
    assert store.conversations("nagy") == []
    assert store.conversations("painted") == []


def test_lists_are_pinned_first_then_newest(store: Store, clock: Clock) -> None:
    for name in "abc":
        clock.now += 1
        store.create(name, name)
    store.pin("a", True)
    assert [summary.id for summary in store.conversations()] == ["a", "c", "b"]


def test_what_was_never_sent_is_listed_first_by_its_first_words_and_found(store: Store, clock: Clock) -> None:
    store.create("c", "Gate")
    store.add("c", question("q", "Who?"))
    store.create("d", "")
    store.draft("d", "  what about the crane? ")
    store.create("e", "")
    store.pend("e", (Attachment("log.md", "markdown", "412"),))
    clock.now += 60
    store.add("c", question("q2", "And?", "q"))
    assert [(s.id, s.title, s.unsent) for s in store.conversations()][2] == ("c", "Gate", False)
    unsent = {summary.title for summary in store.conversations() if summary.unsent}
    assert unsent == {"what about the crane?", "log.md"}
    assert [summary.id for summary in store.conversations("crane")] == ["d"]
    store.pend("e", ())
    assert store.load("e").pending == ()
    store.discard("e")
    store.discard("c")  # not without a message
    assert {summary.id for summary in store.conversations()} == {"c", "d"}
    loaded = store.unsent()
    assert loaded is not None
    assert (loaded.summary.id, loaded.draft) == ("d", "  what about the crane? ")


def test_an_answer_with_details_of_another_version_keeps_its_text(store: Store) -> None:
    store.create("c", "Gate")
    store.add("c", question("q", "Who?"))
    store.add("c", Message("a", "q", "assistant", "Mira."))
    store._db.execute("""UPDATE message SET details = '{"runs": [{"source": "satellite"}]}' WHERE id = 'a'""")
    assert store.load("c").messages[1] == Message("a", "q", "assistant", "Mira.")


def test_a_long_conversation_is_deleted_whole(store: Store) -> None:
    store.create("c", "t")
    parent = None
    for i in range(1_500):  # deeper than SQLite's triggers may nest
        store.add("c", question(str(i), "x", parent))
        parent = str(i)
    store.delete("c")
    with pytest.raises(HistoryError, match="deleted"):
        store.load("c")


def test_an_older_file_is_brought_up_to_date_and_its_messages_are_found(tmp_path: Path) -> None:
    path = tmp_path / "old.sqlite"
    raw = sqlite3.connect(path)
    raw.executescript(MIGRATIONS[0])
    raw.execute("INSERT INTO conversation VALUES ('c', 'old', 0, 1.0, 1.0, 'q', '')")
    raw.execute(
        "INSERT INTO message (id, conversation, parent, role, text, state, details, created_at) "
        "VALUES ('q', 'c', NULL, 'user', 'an old question', 'whole', '{}', 1.0)"
    )
    raw.execute("PRAGMA user_version = 1")
    raw.commit()
    raw.close()
    store = Store(path)
    assert [found.id for found in store.conversations("question")] == ["c"]
    assert store.load("c").messages[0].text == "an old question"
    store.close()


def test_a_newer_file_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "new.sqlite"
    raw = sqlite3.connect(path)
    raw.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    raw.close()
    with pytest.raises(HistoryNewerError, match="update pd-chat"):
        Store(path)


def test_a_file_that_is_no_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite"
    path.write_bytes(b"something else " * 100)
    with pytest.raises(HistoryDamagedError, match="Move it away"):
        Store(path)
    assert path.read_bytes().startswith(b"something else")


@pytest.mark.skipif(os.name == "nt", reason="folders are made otherwise on Windows")
def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HistoryAccessError, match="choose another --data"):
        Store(tmp_path / "file" / "history.sqlite")


def test_a_full_disk_says_so_and_what_was_written_stays(store: Store) -> None:
    store.create("c", "t")
    store.add("c", question("q", "short"))
    pages = store._db.execute("PRAGMA page_count").fetchone()[0]
    store._db.execute(f"PRAGMA max_page_count = {pages}")  # SQLite's own way to have a full disk
    with pytest.raises(HistoryFullError, match="Free some space"):
        store.add("c", question("q2", "long " * 10_000, "q"))
    assert [message.id for message in store.load("c").messages] == ["q"]
    store._db.execute("PRAGMA max_page_count = 100000")
    store.add("c", question("q2", "long " * 10_000, "q"))


def conversation() -> Conversation:
    messages = (
        question("q", "Who?", attachments=(Attachment("log.md", "markdown", "```\n412\n```"),)),
        Message("a", "q", "assistant", "Mira.", details=Details((Run(Source.CLOUD, 0, 5),), REPORT)),
        Message("b", "q", "assistant", "Ivo."),
    )
    return Conversation(Summary("c", "Gate", True, 1_000_000.0, 1_000_000.0), messages, "a", "draft")


def test_an_export_comes_back_as_it_was_under_new_ids(store: Store) -> None:
    [imported] = exchange.from_json(exchange.to_json([conversation()]))
    assert {message.id for message in imported.messages}.isdisjoint({"q", "a", "b"})
    assert [message.text for message in exchange.shown_path(imported)] == ["Who?", "Mira."]
    assert imported.messages[1].details.report == REPORT
    store.insert(imported)
    assert store.load(imported.summary.id).messages == imported.messages


@pytest.mark.parametrize("text", ["", "{}", '{"format": "x", "version": 1, "conversations": []}', "\x00"])
def test_what_is_no_export_is_refused(text: str) -> None:
    with pytest.raises(BadImportError):
        exchange.from_json(text)


def test_markdown_shows_the_branch_and_fences_documents_safely() -> None:
    text = exchange.to_markdown(conversation())
    assert "Mira." in text
    assert "Ivo." not in text
    assert "````text\n```\n412\n```\n````" in text
    assert "1 tokens from the cloud" in text
