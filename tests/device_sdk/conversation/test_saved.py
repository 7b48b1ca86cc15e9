"""Conversations on disk: as warm as they were saved, and refused where they are another model's or damaged."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from device_sdk import HybridClient, Mode
from device_sdk.conversation import Conversation, saved
from device_sdk.errors import ConversationFileError, OtherModelError
from model_runtime.core import Message
from model_runtime.loading import load_engine
from model_runtime.testing import ScriptedEngine
from model_runtime.tools.spec import ToolCall
from tests.device_sdk.conversation.conftest import SYSTEM, UNPACED, alone

ALONE = {"mode": Mode.ONLY_ON_DEVICE, "split": UNPACED}


async def saved_talk(path: Path, **model: object) -> Conversation:
    """A conversation of one turn, saved by a client that is closed."""
    async with HybridClient(device=ScriptedEngine(**model), **ALONE) as client:  # type: ignore[arg-type]
        conversation = Conversation(client, system=SYSTEM, overflow="drop_oldest")
        await conversation.send("Who locked the gate?", max_tokens=8)
        file = await conversation.save(path)
        assert file.kv_bytes > 0
        return conversation


async def test_a_conversation_goes_on_where_it_was_saved(tmp_path: Path) -> None:
    path = tmp_path / "talk"
    before = await saved_talk(path)
    assert path.stat().st_mode & 0o077 == 0
    assert _files(tmp_path) == ["talk"]
    async with HybridClient(device=ScriptedEngine(), **ALONE) as client:
        restored = await Conversation.restore(client, path)
        assert (restored.messages, restored.overflow) == (before.messages, before.overflow)
        assert restored.warm_tokens > 100
        answer = await restored.send("And the pump?", max_tokens=8)
        assert answer.report.reused_tokens > 100
        assert answer.token_ids == alone(restored.messages[:-1], 8)
        # Over the old file, without the KV cache.
        assert (await restored.save(path, kv=False)).kv_bytes == 0
        text = await Conversation.restore(client, path)
        assert (text.messages, text.warm_tokens) == (restored.messages, 0)


async def test_the_kv_cache_of_another_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "talk"
    before = await saved_talk(path)
    async with HybridClient(device=ScriptedEngine(seed=1, name="other"), **ALONE) as client:
        with pytest.raises(OtherModelError, match="belongs to scripted on scripted, and this is other on scripted"):
            await Conversation.restore(client, path)
        text = await Conversation.restore(client, path, kv=False)
        assert text.messages == before.messages
        answer = await text.send("And the pump?", max_tokens=4)
        assert answer.token_ids == alone(text.messages[:-1], 4, seed=1)
    async with HybridClient(cloud="ws://127.0.0.1:9", mode=Mode.ONLY_IN_CLOUD) as client:
        with pytest.raises(OtherModelError, match="no engine is loaded"):
            await Conversation.restore(client, path)


async def test_a_damaged_file_is_refused_and_costs_nothing(tmp_path: Path) -> None:
    path = tmp_path / "talk"
    await saved_talk(path)
    whole = path.read_bytes()
    async with HybridClient(device=ScriptedEngine(), **ALONE) as client:
        for data, says in (
            (b"", "no saved conversation"),
            (b"PDCV" + b"\7\0" + whole[6:], "format version 7"),
            (whole[:200], "its header is cut short"),
            (whole[:-1], "bytes of KV cache are there"),
            (whole[:-1] + b"\xff", "the KV is damaged"),
            (whole[:40] + b"~" + whole[41:], "cut short or changed"),
        ):
            path.write_bytes(data)
            with pytest.raises(ConversationFileError, match=says):
                await Conversation.restore(client, path)
        with pytest.raises(ConversationFileError, match="No such file"):
            await Conversation.restore(client, tmp_path / "nothing")
        with pytest.raises(ConversationFileError, match="cannot write"):
            await Conversation(client).save(tmp_path / "no" / "folder")
        assert client.shelf is not None
        assert client.shelf.idle == 0


@given(st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_changed_byte_of_a_header_is_found_or_harmless(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "talk"
    turn = saved.SavedTurn([{"role": "user", "content": "Wer? 東京"}], "Ich.", [], True)
    saved.write(path, saved.Saved("A log.", "refine", [turn], 0), b"")
    raw = bytearray(path.read_bytes())
    where = data.draw(st.integers(0, len(raw) - 1))
    raw[where] ^= data.draw(st.integers(1, 255))
    path.write_bytes(raw)
    with pytest.raises(ConversationFileError):
        saved.read(path, kv=True)


def test_tool_calls_and_several_messages_come_back(tmp_path: Path) -> None:
    asked: list[Message] = [
        Message(role="user", content="How warm is it?"),
        Message(role="assistant", content="", tool_calls=[ToolCall("1", "warmth", '{"x": 1}')]),
        Message(role="tool", content="21", tool_call_id="1"),
    ]
    turns = [saved.Turn(tuple(asked), "", (ToolCall("2", "cool", "{}"),))]
    path = tmp_path / "talk"
    saved.write(path, saved.Saved(None, "error", saved.saved_turns(turns), 0), b"")
    [turn] = saved.restored_turns(saved.read(path, kv=True)[0], path)
    assert turn == turns[0]
    assert turn.messages[-1]["tool_calls"] == (ToolCall("2", "cool", "{}"),)


@pytest.mark.parametrize("file", ["model.onnx", "model.fixed.onnx", "model.gguf"])
async def test_real_engines_go_on_from_disk_as_they_would_have(tiny_model, tmp_path: Path, file: str) -> None:
    path, model = tmp_path / "talk", tiny_model("llama") / file
    answers = []
    with load_engine(model, threads=1) as engine:
        async with HybridClient(device=engine, **ALONE) as client:
            conversation = Conversation(client, system="the log")
            await conversation.send("who", max_tokens=6)
            await conversation.save(path)
            answers.append(await conversation.send("and?", max_tokens=8))
    with load_engine(model, threads=1) as engine:
        async with HybridClient(device=engine, **ALONE) as client:
            restored = await Conversation.restore(client, path)
            answers.append(await restored.send("and?", max_tokens=8))
            cold = Conversation(client, system="the log")
            answers.append(await cold.send(restored.messages[1:-1], max_tokens=8))
    assert answers[0].report.reused_tokens == answers[1].report.reused_tokens > 10
    assert answers[2].report.reused_tokens == 0
    assert answers[0].token_ids == answers[1].token_ids == answers[2].token_ids


def _files(folder: Path) -> list[str]:
    return [each.name for each in folder.iterdir()]
