"""Prompts outside of conversations that begin alike, and prompts that are no chat."""

from __future__ import annotations

import pytest

from device_sdk import ConfigurationError, DeviceError, HybridClient, Mode, RawPrompt, SplitSettings
from device_sdk.generation.reading import Reading
from device_sdk.prefixes import SharedPrefixes
from model_runtime.core import Message
from model_runtime.testing import ScriptedEngine, ScriptedTokenizer
from speed_controller.settings import PaceSettings
from tests.device_sdk.conftest import PROMPT, per_token

UNPACED = SplitSettings(grant=6, pace=PaceSettings(mode="off"))


def chat(*said: str) -> list[Message]:
    return [Message(role="user" if index % 2 == 0 else "assistant", content=text) for index, text in enumerate(said)]


def kept(pool: SharedPrefixes, *tokens: int):
    """What the Shelf leaves behind after a prompt of `tokens`."""
    one = pool.choose(tokens)
    one.reading = Reading(tokens, ((0, len(tokens)),))
    return one


def test_the_one_that_holds_most_is_chosen_and_none_is_ruined() -> None:
    pool = SharedPrefixes()
    long, short = kept(pool, *range(100)), kept(pool, 900, 901, *range(20))
    assert pool.choose([*range(100), 7]) is long
    assert pool.choose([*range(60), 7]) is long
    fresh = pool.choose([*range(40), 7])
    assert fresh not in (long, short), "more than half of what it holds would be lost"
    assert pool.choose([900, 901, *range(20), 5]) is short
    long.in_use = True
    assert pool.choose([*range(100), 7]) not in (long, short)
    long.in_use, long.reading = False, Reading()
    assert pool.choose([*range(100), 7]) is not long, "the shelf gave it up"


async def test_the_next_turn_of_a_chat_reads_what_is_new() -> None:
    engine = ScriptedEngine(max_sequences=3)
    async with HybridClient(device=engine, mode=Mode.ONLY_ON_DEVICE, split=UNPACED, share_prefixes=True) as client:
        first = await client.generate(chat(PROMPT), max_tokens=20)
        asked = chat(PROMPT, first.text, "And then?")
        before = len(engine.passes)
        second = await client.generate(asked, max_tokens=20)
        read = sum(len(chunk.tokens) for chunks in engine.passes[before:] for chunk in chunks)
    assert first.report.reused_tokens == 0
    assert second.report.reused_tokens >= first.report.prompt_tokens
    assert read < second.report.prompt_tokens / 2
    async with HybridClient(device=ScriptedEngine(), mode=Mode.ONLY_ON_DEVICE, split=UNPACED) as cold:
        assert (await cold.generate(asked, max_tokens=20)).token_ids == second.token_ids


async def test_many_prompts_leave_no_more_open_than_the_shelf_holds() -> None:
    engine = ScriptedEngine(max_sequences=3)
    async with HybridClient(
        device=engine, mode=Mode.ONLY_ON_DEVICE, split=UNPACED, warm_conversations=2, share_prefixes=True
    ) as client:
        for number in range(12):
            await client.generate(f"{number} pump", max_tokens=3)
        assert client.shelf is not None
        assert client.shelf.idle == 2


@pytest.mark.parametrize("mode", [Mode.ONLY_ON_DEVICE, Mode.SPLIT, Mode.ONLY_IN_CLOUD])
async def test_a_raw_prompt_is_the_prompt(serve, mode: Mode) -> None:
    tokenizer = ScriptedTokenizer()
    engine, service = ScriptedEngine(delay=per_token(0.001)), serve(ScriptedEngine())
    async with HybridClient(device=engine, cloud=service.url, mode=mode, split=UNPACED) as client:
        answer = await client.generate(RawPrompt(f"<|im_start|>the crew {PROMPT}"), max_tokens=24)
        chatted = await client.generate(f"<|im_start|>the crew {PROMPT}", max_tokens=24)
    ids = [tokenizer.im_start, *tokenizer.encode(f"the crew {PROMPT}")]
    assert answer.report.prompt_tokens == len(ids)
    assert answer.token_ids != chatted.token_ids
    assert bool(answer.report.cloud_tokens) == (mode is not Mode.ONLY_ON_DEVICE)
    read = [token for chunks in service.engine.passes for chunk in chunks for token in chunk.tokens]
    assert mode is Mode.ONLY_ON_DEVICE or read[: len(ids)] == ids


async def test_a_raw_prompt_where_text_travels_is_the_device_s_alone(serve) -> None:
    service = serve(ScriptedEngine(tokenizer=ScriptedTokenizer(words=(" crew", "the"))))
    device = ScriptedEngine(delay=per_token(0.001))
    async with HybridClient(device=device, cloud=service.url, split=UNPACED) as client:
        answer = await client.generate(RawPrompt(PROMPT), max_tokens=10)
    assert answer.report.device_tokens == len(answer.token_ids) > 0
    assert "a raw prompt travels in token ids only" in answer.report.notices[0]


async def test_a_raw_prompt_needs_text_and_a_tokenizer(serve) -> None:
    async with HybridClient(device=ScriptedEngine(), mode=Mode.ONLY_ON_DEVICE) as client:
        with pytest.raises(ConfigurationError, match="has some text"):
            await client.generate(RawPrompt(""))
    async with HybridClient(cloud=serve().url, mode=Mode.ONLY_IN_CLOUD) as client:
        with pytest.raises(DeviceError, match="needs the device's tokenizer"):
            await client.generate(RawPrompt("the crew"))
