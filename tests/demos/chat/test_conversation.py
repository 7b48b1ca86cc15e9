"""A conversation without a screen: what a click means, what is kept of it, what goes wrong."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest

from demos.chat.history.records import Attachment
from demos.chat.testing import Script
from demos.chat.viewmodel.answer import AnswerModel
from demos.chat.viewmodel.conversation import title_of
from demos.chat.viewmodel.problems import problem_of
from demos.chat.viewmodel.services import Begun, Stamped
from device_sdk import (
    ConfigurationError,
    ConnectError,
    GenerationFailedError,
    IncompatibleError,
    Mode,
    Notice,
    PromptTooLongError,
    Source,
    Token,
    UnauthorizedError,
)
from model_runtime.errors import DiskFullError, ModelFormatError
from tests.demos.chat.conftest import Rig

LOG = Attachment("log.txt", "text", "412 Mira Nagy locked the gate.")


async def test_a_question_is_answered_by_both_and_kept(rig: Rig) -> None:
    answer = rig.conversation.tree[await rig.asked("Who locked the gate?")]
    assert answer.text == rig.client.script.text
    assert answer.state == "whole"
    assert [run.source for run in answer.runs] == [Source.CLOUD, Source.DEVICE]
    assert answer.answer.trace.handover == 4
    await rig.written()
    stored = await rig.history.do(lambda store: store.load(rig.conversation.id))
    assert [message.text for message in stored.messages] == ["Who locked the gate?", answer.text]
    assert stored.messages[1].details.report == answer.report
    assert stored.summary.title == "Who locked the gate?"


async def test_every_token_is_on_disk_before_the_answer_ends(rig: Rig) -> None:
    rig.client.script.hold_at = 6
    rig.conversation.send("Who?")
    answer = rig.conversation.tree.path()[-1]
    await rig.until(lambda: len(answer.text.split()) == 6)
    await rig.written()
    stored = await rig.history.do(lambda store: store.load(rig.conversation.id))
    assert stored.messages[1].text == answer.text
    assert stored.messages[1].state == "streaming"


async def test_stop_keeps_what_was_said_and_ends_the_generation(rig: Rig) -> None:
    rig.client.script.hold_at = 5
    rig.conversation.send("Who?")
    answer = rig.conversation.tree.path()[-1]
    await rig.until(lambda: len(answer.text.split()) == 5)
    said = answer.text
    rig.conversation.stop()
    assert not rig.conversation.busy
    assert answer.state == "stopped"
    await rig.until(lambda: answer.report)
    assert rig.client.cancelled == 1
    assert (answer.text, answer.state) == (said, "stopped")
    assert answer.report is not None
    assert (answer.report.finish_reason, answer.report.cloud_tokens, answer.report.device_tokens) == ("cancelled", 4, 1)
    await rig.written()
    stored = await rig.history.do(lambda store: store.load(rig.conversation.id))
    assert (stored.messages[1].text, stored.messages[1].state) == (said, "stopped")
    assert stored.messages[1].details.report == answer.report


async def test_after_a_stop_the_next_question_does_not_wait_for_the_report(rig: Rig) -> None:
    rig.client.script.hold_at = 5
    rig.conversation.send("Who?")
    first = rig.conversation.tree.path()[-1]
    await rig.until(lambda: len(first.text.split()) == 5)
    rig.client.script = Script("Another answer.")
    rig.conversation.stop()
    second = rig.conversation.tree[await rig.asked("When?")]
    await rig.until(lambda: first.report)
    assert (first.state, second.state) == ("stopped", "whole")
    assert not rig.conversation.busy


async def test_stopped_before_it_began_there_is_nothing_to_report(rig: Rig) -> None:
    rig.holder.opened.clear()
    rig.conversation.send("Who?")
    await asyncio.sleep(0.02)
    rig.conversation.stop()
    answer = rig.conversation.tree.path()[-1]
    rig.holder.opened.set()
    await asyncio.sleep(0.05)
    assert (answer.state, answer.text, answer.report, rig.client.asked) == ("stopped", "", None, [])


async def test_events_of_a_newer_sdk_are_left_out() -> None:
    answer = AnswerModel()
    answer.take(Stamped(0.0, Begun(Mode.SPLIT, None)))
    answer.take(Stamped(0.1, "an event that this client never heard of"))  # type: ignore[arg-type]
    answer.take(Stamped(0.2, Notice("of a new kind", "something happened")))  # type: ignore[arg-type]
    answer.take(Stamped(0.3, Token(0, "Mira", Source.CLOUD, 0)))
    assert (answer.text, answer.state, answer.notices) == ("Mira", "streaming", ["Note: something happened"])


async def test_a_question_may_be_asked_while_the_models_load(rig: Rig) -> None:
    rig.holder.opened.clear()
    assert rig.conversation.send("Who?")
    await asyncio.sleep(0.02)
    assert rig.conversation.tree.path()[-1].answer.waiting
    rig.holder.opened.set()
    await rig.until(lambda: not rig.conversation.busy)
    assert rig.conversation.tree.path()[-1].state == "whole"


async def test_only_one_answer_at_a_time(rig: Rig) -> None:
    rig.client.script.hold_at = 2
    assert rig.conversation.send("one")
    assert not rig.conversation.send("two")
    assert not rig.conversation.regenerate()
    assert not rig.conversation.send("  ")


async def test_documents_go_before_the_question_and_earlier_turns_before_both(rig: Rig) -> None:
    await rig.asked("Hello")
    rig.conversation.attach(LOG)
    await rig.asked("Who?")
    messages = rig.client.asked[-1].messages
    assert [message["role"] for message in messages] == ["user", "assistant", "user"]
    assert messages[-1]["content"] == f"{LOG.text}\n\nWho?"
    assert rig.conversation.pending == []
    rig.conversation.attach(LOG)
    rig.conversation.attach(dataclasses.replace(LOG, name="b.txt", text="other"))
    await rig.asked("Both?")
    assert rig.client.asked[-1].messages[-1]["content"] == f"# log.txt\n\n{LOG.text}\n\n# b.txt\n\nother\n\nBoth?"


async def test_editing_makes_a_branch_beside_the_first_and_both_stay(rig: Rig) -> None:
    await rig.asked("Who?")
    first = rig.conversation.tree.path()[0].id
    rig.client.script = Script("Another answer.")
    assert rig.conversation.edit(first, "When?")
    await rig.until(lambda: not rig.conversation.busy)
    path = rig.conversation.tree.path()
    assert [message.text for message in path] == ["When?", "Another answer."]
    assert rig.conversation.tree.place(path[0].id) == (2, 2)
    assert len(rig.client.asked[-1].messages) == 1
    rig.conversation.turn(path[0].id, -1)
    assert rig.conversation.tree.path()[0].text == "Who?"
    await rig.written()
    stored = await rig.history.do(lambda store: store.load(rig.conversation.id))
    assert len(stored.messages) == 4
    assert stored.leaf == rig.conversation.tree.leaf


async def test_regenerating_gives_another_version_of_the_answer(rig: Rig) -> None:
    first = await rig.asked("Who?")
    rig.client.script = Script("Somebody else.")
    assert rig.conversation.regenerate()
    await rig.until(lambda: not rig.conversation.busy)
    last = rig.conversation.tree.path()[-1]
    assert (last.text, rig.conversation.tree.place(last.id)) == ("Somebody else.", (2, 2))
    assert rig.conversation.tree[first].text != last.text


async def test_an_answer_goes_on_while_another_conversation_is_shown(rig: Rig) -> None:
    rig.client.script.hold_at = 3
    rig.conversation.send("Who?")
    asking = rig.conversation
    rig.app.new_chat()
    assert rig.conversation is not asking
    rig.client.script.hold.set()
    await rig.until(lambda: not asking.busy)
    rig.app.open(asking.id)
    await rig.until(lambda: rig.conversation.id == asking.id)
    assert rig.conversation.tree.path()[-1].text == rig.client.script.text


async def test_drafts_are_kept(rig: Rig) -> None:
    await rig.asked("Who?")
    rig.conversation.set_draft("and wh")
    first = rig.conversation.id
    rig.app.new_chat()
    rig.conversation.set_draft("new words")
    fresh = rig.conversation.id
    rig.app.open(first)
    await rig.until(lambda: rig.conversation.id == first)
    assert rig.conversation.draft == "and wh"
    await rig.until(lambda: [(s.title, s.unsent) for s in rig.app.library.summaries][:1] == [("new words", True)])
    rig.app.open(fresh)
    await rig.until(lambda: rig.conversation.id == fresh)
    assert rig.conversation.draft == "new words"


async def test_what_was_never_sent_is_there_again_after_a_restart_with_its_documents(rig: Rig) -> None:
    rig.conversation.set_draft("what about the")
    rig.conversation.attach(LOG)
    rig.conversation.attach(dataclasses.replace(LOG, name="b.txt"))
    rig.conversation.detach(0)
    await rig.written()
    again = Rig(rig.folder)
    again.app.start()
    await again.until(lambda: not again.conversation.pristine)
    assert (again.conversation.id, again.conversation.draft) == (rig.conversation.id, "what about the")
    assert [item.name for item in again.conversation.pending] == ["b.txt"]
    answer = again.conversation.tree[await again.asked("what about the gate?")]
    assert answer.state == "whole"
    await again.written()
    stored = await again.history.do(lambda store: store.load(again.conversation.id))
    assert (stored.summary.title, stored.draft, stored.pending) == ("what about the gate?", "", ())
    assert stored.messages[0].attachments == (dataclasses.replace(LOG, name="b.txt"),)
    again.history.close()


async def test_a_draft_that_was_emptied_leaves_nothing_behind(rig: Rig) -> None:
    rig.app.start()
    rig.conversation.set_draft("wh")
    rig.conversation.attach(LOG)
    rig.conversation.set_draft("")
    rig.conversation.detach(0)
    await rig.written()
    assert await rig.history.do(lambda store: store.conversations()) == []
    rig.conversation.set_draft("who?")
    await rig.written()
    assert [s.title for s in await rig.history.do(lambda store: store.conversations())] == ["who?"]


async def test_a_restart_does_not_take_the_place_of_what_was_begun_meanwhile(rig: Rig) -> None:
    await rig.history.do(lambda store: (store.create("old", ""), store.draft("old", "old words")))
    rig.app.start()
    rig.conversation.set_draft("new")
    begun = rig.conversation.id
    await rig.until(lambda: rig.app.library.summaries)
    await rig.written()
    assert rig.conversation.id == begun


async def test_a_lost_cloud_is_a_quiet_notice_and_more_grant_is_none(rig: Rig) -> None:
    rig.client.script.notices = (Notice("cloud_lost", "the connection was lost"), Notice("extended", "12 more"))
    answer = rig.conversation.tree[await rig.asked("Who?")]
    assert answer.state == "whole"
    [notice] = answer.answer.notices
    assert notice == "The device goes on without the cloud: the connection was lost"


async def test_nobody_there_says_where_to_choose(rig: Rig) -> None:
    rig.holder.sides = ()
    answer = rig.conversation.tree[await rig.asked("Who?")]
    assert answer.state == "failed"
    assert answer.answer.problem is not None
    assert answer.answer.problem.remedy == "settings"
    # It is no turn of the conversation.
    rig.holder.sides = ("device", "cloud")
    await rig.asked("Again?")
    assert [message["content"] for message in rig.client.asked[-1].messages] == ["Who?", "Again?"]


@pytest.mark.parametrize(
    ("side", "mode", "used"),
    [
        ("device", Mode.SPLIT, Mode.ONLY_ON_DEVICE),
        ("cloud", Mode.SPLIT, Mode.ONLY_IN_CLOUD),
        ("cloud", Mode.PREFER_ON_DEVICE, Mode.ONLY_IN_CLOUD),
        ("cloud", Mode.ONLY_ON_DEVICE, Mode.ONLY_ON_DEVICE),
    ],
)
async def test_with_one_side_it_answers_alone_but_never_in_the_cloud_against_the_users_will(
    rig: Rig, side: str, mode: Mode, used: Mode
) -> None:
    rig.holder.sides = (side,)  # type: ignore[assignment]
    rig.app.change(mode=mode)
    answer = rig.conversation.tree[await rig.asked("Who?")]
    assert rig.client.asked[-1].mode is used
    assert bool(answer.answer.notices) is (used is not mode)


@pytest.mark.parametrize(
    ("error", "title", "remedy"),
    [
        (UnauthorizedError("wss://x refused the API key (HTTP 401)"), "does not accept the key", "settings"),
        (ConnectError("no connection to wss://x"), "cannot be reached", "settings"),
        (IncompatibleError("another model"), "another model or version", "settings"),
        (ModelFormatError("model.gguf is damaged"), "damaged", "settings"),
        (DiskFullError("no room"), "disk is full", "settings"),
        (PromptTooLongError("9000 tokens"), "too long", "none"),
        (ConfigurationError("no cloud"), "cannot be done as set", "settings"),
        (RuntimeError("surprise"), "unexpected", "none"),
    ],
)
async def test_every_failure_says_what_it_is_and_where_to_go(
    rig: Rig, error: Exception, title: str, remedy: str
) -> None:
    rig.client.script.error = error
    answer = rig.conversation.tree[await rig.asked("Who?")]
    problem = answer.answer.problem
    assert problem is not None
    assert title in problem.title
    assert str(error)[1:] in problem.text
    assert len(problem.text) > len(str(error)) + 1 or title in ("cannot be done as set", "unexpected")
    assert problem.remedy == remedy
    assert not rig.conversation.busy


async def test_a_failed_answer_keeps_its_beginning_through_a_restart(rig: Rig) -> None:
    rig.client.script.failure = lambda answer: GenerationFailedError("no side could finish", answer=answer)
    answer = rig.conversation.tree[await rig.asked("Who?")]
    assert (answer.state, answer.text) == ("failed", rig.client.script.text)
    await rig.written()
    first = rig.conversation.id
    rig.app.new_chat()
    rig.app.open(first)
    await rig.until(lambda: rig.conversation.id == first)
    again = rig.conversation.tree.path()[-1].answer
    assert again.problem == answer.answer.problem == problem_of(rig.client.script.failure(None))  # type: ignore[arg-type]
    assert again.text == answer.text


def test_a_title_is_the_questions_first_words() -> None:
    assert title_of("  Who\n locked it? ") == "Who locked it?"
    assert title_of("word " * 40) == "word " * 11 + "word …"
    assert title_of("", (LOG,)) == "log.txt"
