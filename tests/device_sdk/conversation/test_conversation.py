"""Turns over one KV cache: what is read, what is said, and what a conversation leaves behind."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from contextlib import aclosing

import pytest

from device_sdk import ConfigurationError, Finished, HybridClient, Mode, PromptTooLongError, SyncHybridClient, Token
from device_sdk.conversation import Conversation, SyncConversation
from device_sdk.errors import ConversationBusyError, GenerationFailedError
from device_sdk.events import Cancelled, Notice
from model_runtime.core import Cancellation
from model_runtime.testing import Faults, ScriptedEngine
from tests.device_sdk.conftest import per_token
from tests.device_sdk.conversation.conftest import SYSTEM, UNPACED, alone, reads

ALONE = {"mode": Mode.ONLY_ON_DEVICE, "split": UNPACED}


async def test_each_turn_says_what_the_whole_prompt_would_and_reads_only_what_is_new() -> None:
    engine = ScriptedEngine()
    async with HybridClient(device=engine, **ALONE) as client, Conversation(client, system=SYSTEM) as conversation:
        for number, question in enumerate(["Who locked the gate?", "And the pump?", "Is it 東京?"]):
            before = len(engine.passes)
            answer = await conversation.send(question, max_tokens=24)
            assert answer.token_ids == alone(conversation.messages[:-1], 24)
            report = answer.report
            assert sum(reads(engine, before)) + report.reused_tokens == report.prompt_tokens
            if number:
                assert report.reused_tokens > 0.8 * report.prompt_tokens
                assert "ONLY_ON_DEVICE" in report.route_reason
        assert [turn.question for turn in conversation.turns] == [
            "Who locked the gate?",
            "And the pump?",
            "Is it 東京?",
        ]
        assert conversation.warm_tokens > 0
    assert engine.open() is not None
    assert _open_sequences(engine) == 1


async def test_editing_and_regenerating_keep_what_they_share() -> None:
    engine = ScriptedEngine()
    async with HybridClient(device=engine, **ALONE) as client, Conversation(client, system=SYSTEM) as conversation:
        first = await conversation.send("Who locked the gate?", max_tokens=16)
        await conversation.send("And the pump?", max_tokens=16)
        again = await conversation.regenerate(max_tokens=16)
        assert (again.text, again.report.reused_tokens) == (
            conversation.turns[1].answer,
            again.report.prompt_tokens - 1,
        )
        edited = await conversation.edit(0, "Who locked the valve?", max_tokens=16)
        assert [turn.question for turn in conversation.turns] == ["Who locked the valve?"]
        assert edited.report.reused_tokens > 0.8 * edited.report.prompt_tokens
        assert edited.token_ids == alone(conversation.messages[:-1], 16)
        back = await conversation.edit(-1, "Who locked the gate?", max_tokens=16)
        assert back.token_ids == first.token_ids
        with pytest.raises(IndexError, match="no turn 1: the conversation has 1"):
            await conversation.edit(1, "No.")


async def test_branches_share_what_was_read_and_go_their_own_ways() -> None:
    engine = ScriptedEngine()
    async with HybridClient(device=engine, **ALONE) as client, Conversation(client, system=SYSTEM) as conversation:
        await conversation.send("Who locked the gate?", max_tokens=12)
        async with await conversation.branch() as other:
            mine = await conversation.send("And the pump?", max_tokens=12)
            its = await other.send("And the valve?", max_tokens=12)
            for turn, one in ((mine, conversation), (its, other)):
                assert turn.token_ids == alone(one.messages[:-1], 12)
                assert turn.report.reused_tokens > 0.8 * turn.report.prompt_tokens
        empty = await conversation.branch(0)
        assert empty.turns == ()
        assert (await empty.send("Anew?", max_tokens=4)).token_ids == alone(empty.messages[:-1], 4)
        await empty.close()


async def test_the_least_recently_used_gives_its_place_and_is_none_the_worse() -> None:
    engine = ScriptedEngine(max_sequences=3)
    async with HybridClient(device=engine, **ALONE, warm_conversations=2) as client:
        three = [Conversation(client, system=f"{number} {SYSTEM}") for number in range(3)]
        for one in three:
            await one.send("Who?", max_tokens=4)
        assert [one.warm_tokens > 0 for one in three] == [False, True, True]
        for one in three:
            answer = await one.send("And then?", max_tokens=4)
            assert answer.token_ids == alone(one.messages[:-1], 4)
        # Several at once, more than there are sequences beside those kept.
        answers = await asyncio.gather(*(one.send("At once?", max_tokens=8) for one in three))
        assert [each.token_ids for each in answers] == [alone(one.messages[:-1], 8) for one in three]
        for one in three:
            await one.close()
    assert _open_sequences(engine) == 0


async def test_two_hundred_conversations_leave_nothing_behind() -> None:
    engine, early = ScriptedEngine(max_sequences=4), Counter[str]()
    async with HybridClient(device=engine, **ALONE) as client:
        for number in range(200):
            async with Conversation(client, system="A log.") as conversation:
                await conversation.send("Who?", max_tokens=2)
            engine.passes.clear()
            if number == 20:
                early = _objects()
        assert client.shelf is not None
        assert client.shelf.idle == 0
        assert _objects() - early == Counter()
    assert _open_sequences(engine) == 0


async def test_warming_reads_ahead_and_ends_when_a_turn_begins(until) -> None:
    engine = ScriptedEngine(delay=per_token(0.0005))
    async with HybridClient(device=engine, **ALONE) as client, Conversation(client, system=SYSTEM) as conversation:
        assert await conversation.warm() == conversation.warm_tokens > 100
        before = len(engine.passes)
        answer = await conversation.send("Who?", max_tokens=3)
        assert sum(reads(engine, before)) < 30
        assert answer.token_ids == alone(conversation.messages[:-1], 3)
        cold, before = Conversation(client, system=SYSTEM * 20), len(engine.passes)
        task = asyncio.create_task(cold.warm())
        await until(lambda: len(engine.passes) > before + 1)
        answer = await cold.send("Who?", max_tokens=3)
        assert answer.token_ids == alone(cold.messages[:-1], 3)
        assert 0 < await task == answer.report.reused_tokens < answer.report.prompt_tokens / 2
        await cold.close()


async def test_a_cancelled_turn_keeps_what_was_read_and_shown() -> None:
    engine = ScriptedEngine(delay=per_token(0.001))
    async with HybridClient(device=engine, **ALONE) as client, Conversation(client, system=SYSTEM) as conversation:
        shown = ""
        async with aclosing(conversation.stream("Tell me all.", max_tokens=200)) as events:
            async for event in events:
                shown += event.text if isinstance(event, Token) else ""
                if len(shown) > 10:
                    break
        [turn] = conversation.turns
        assert (turn.answer, turn.complete) == (shown, False)
        async for event in conversation.stream("Begin again.", max_tokens=2):
            if isinstance(event, Finished):
                break
        cancellation, last = Cancellation(), None
        async for event in conversation.stream("Go on.", max_tokens=200, cancellation=cancellation):
            last = event
            if isinstance(event, Token) and event.index == 3:
                cancellation.cancel()
        assert isinstance(last, Cancelled)
        assert conversation.turns[-1].complete is False
        answer = await conversation.send("And now?", max_tokens=5)
        assert answer.report.reused_tokens > 100
        assert answer.token_ids == alone(conversation.messages[:-1], 5)


async def test_a_failed_turn_leaves_no_trace_and_the_next_one_reads_anew() -> None:
    engine = ScriptedEngine()
    async with HybridClient(device=engine, **ALONE) as client, Conversation(client, system=SYSTEM) as conversation:
        await conversation.send("Who?", max_tokens=4)
        engine.faults = Faults(fail_at=len(engine.passes) + 1)
        with pytest.raises(GenerationFailedError):
            await conversation.send("And then?", max_tokens=4)
        assert len(conversation.turns) == 1
        assert conversation.warm_tokens == 0


async def test_one_turn_at_a_time_and_none_after_the_end() -> None:
    engine = ScriptedEngine(delay=per_token(0.001))
    async with HybridClient(device=engine, **ALONE) as client:
        conversation = Conversation(client)
        first = asyncio.create_task(conversation.send("Who?", max_tokens=20))
        await asyncio.sleep(0.01)
        with pytest.raises(ConversationBusyError, match="under way"):
            await conversation.send("And?")
        await first
        await conversation.close()
        await conversation.close()
        with pytest.raises(ConversationBusyError, match="closed"):
            await conversation.send("Still there?")
        with pytest.raises(ConfigurationError, match="expected one of 'error', 'refine', 'drop_oldest'"):
            Conversation(client, overflow="forget")


async def test_a_conversation_too_long_is_refused_or_drops_its_oldest_turns_and_says_so() -> None:
    engine = ScriptedEngine(context_length=260)
    async with HybridClient(device=engine, **ALONE) as client:
        strict = Conversation(client, system="A log.")
        dropping = Conversation(client, system="A log.", overflow="drop_oldest")
        notices: list[str] = []
        for number in range(9):
            events = [event async for event in dropping.stream(f"Number {number}, and a pump?", max_tokens=20)]
            assert isinstance(events[-1], Finished)
            told = [event.message for event in events if isinstance(event, Notice)]
            assert [f"turns_dropped: {message}" for message in told] == list(events[-1].answer.report.notices)
            notices += told
            prompt = dropping.messages[:1] + dropping.messages[1 + 2 * dropping.dropped : -1]
            assert events[-1].answer.token_ids == alone(prompt, 20, context_length=260)
        assert dropping.dropped > 0
        assert 0 < len(notices) < dropping.dropped  # a drop makes room for several turns
        assert len(dropping.turns) == 9
        with pytest.raises(PromptTooLongError, match="even without earlier turns"):
            await dropping.send("pump " * 300, max_tokens=20)
        await strict.send("Number, and a pump?", max_tokens=20)
        with pytest.raises(PromptTooLongError, match="overflow='refine' or 'drop_oldest'"):
            await strict.send("pump " * 300, max_tokens=20)
        assert len(strict.turns) == 1


def test_the_sync_twin_does_the_same(tmp_path) -> None:
    with SyncHybridClient(device=ScriptedEngine(), **ALONE) as client:
        with SyncConversation(client, system=SYSTEM) as conversation:
            assert conversation.warm() > 0
            conversation.send("Who?", max_tokens=6)
            events = list(conversation.stream("And then?", max_tokens=6))
            assert isinstance(events[-1], Finished)
            assert events[-1].answer.token_ids == alone(conversation.messages[:-1], 6)
            with conversation.branch() as other:
                assert other.regenerate(max_tokens=6).text == conversation.turns[-1].answer
                other.edit(0, "Who else?", max_tokens=6)
                assert [len(each.turns) for each in (other, conversation)] == [1, 2]
            assert conversation.save(tmp_path / "talk").kv_bytes > 0
            warm = conversation.warm_tokens
        with SyncConversation.restore(client, tmp_path / "talk") as restored:
            assert restored.warm_tokens == warm
            assert restored.send("Still there?", max_tokens=4).report.reused_tokens > 100


def _objects() -> Counter[str]:
    """Of the SDK and the runtime, by type."""
    gc.collect()
    ours = (
        type(each)
        for each in gc.get_objects()
        if str(type(each).__module__).startswith(("device_sdk", "model_runtime"))
    )
    return Counter(each.__qualname__ for each in ours)


def _open_sequences(engine: ScriptedEngine) -> int:
    opened = []
    while True:
        try:
            opened.append(engine.open())
        except Exception:
            break
    for sequence in opened:
        engine.close(sequence)
    return engine.info.max_sequences - len(opened)
