"""What past generations left behind, as devices and OpenAI clients see it."""

from __future__ import annotations

import json

import pytest

from wire_protocol.messages import Accepted, Finished, Generate, Progress, Tokens

PROMPT = tuple(range(30, 70))
ALICE, BOB = "alice's key, long enough", "bob's key, also long enough"


async def cached(device, name: str, prompt: tuple[int, ...]) -> tuple[int, int]:
    """Tokens that were said to be cached when it was accepted, and when it ended."""
    await device.send(Generate(name, 2, prompt=prompt))
    messages = await device.until_terminal(name)
    assert isinstance(messages[0], Accepted)
    assert isinstance(messages[-1], Finished)
    return messages[0].cached_tokens, messages[-1].usage.cached_tokens


async def test_a_prompt_that_begins_like_an_earlier_one_is_said_to_be_cached(serve, device, http):
    running = serve()
    async with device(running) as one:
        assert await cached(one, "first", PROMPT) == (0, 0)
        assert await cached(one, "same", PROMPT) == (len(PROMPT) - 1,) * 2
        assert await cached(one, "other", (*PROMPT[:25], 1, 2)) == (25, 25)
    assert f"pd_prefix_cache_hits_total {len(PROMPT) - 1 + 25}.0" in http(running, "/metrics")[1]
    await running.emptied()


@pytest.mark.parametrize(("setting", "found"), [("off", 0), ("key", 0), ("shared", len(PROMPT) - 1)])
async def test_whose_prompts_find_each_other_is_for_the_operator_to_say(serve, device, setting, found):
    running = serve(keys={"alice": ALICE, "bob": BOB}, prefix_cache=setting)
    for key, expected in ((ALICE, 0), (BOB, found)):
        async with device(running, additional_headers={"Authorization": f"Bearer {key}"}) as one:
            assert await cached(one, "g", PROMPT) == (expected, expected)


async def test_openai_clients_read_it_in_the_usage(serve, http):
    running = serve()
    chat = {"model": "scripted", "messages": [{"role": "user", "content": "Where is the pump?"}], "max_tokens": 2}
    usages = []
    for _ in range(2):
        status, body = http(running, "/v1/chat/completions", json.dumps(chat).encode())
        assert status == 200
        usages.append(json.loads(body)["usage"])
    assert usages[0]["prompt_tokens_details"]["cached_tokens"] == 0
    assert usages[1]["prompt_tokens_details"]["cached_tokens"] == usages[1]["prompt_tokens"] - 1


async def test_whatever_a_device_says_of_its_progress_it_gets_all_of_its_grant(serve, device):
    running = serve()
    async with device(running) as one:
        await one.send(Generate("g", 50, prompt=PROMPT, output=(5, 6, 7)))
        while not isinstance(await one.receive(), Tokens):
            pass
        for shown, pace, ready in ((0, 1e9, 1e9), (2**31 - 1, 0.0, None), (4, 50.0, 0.0)):
            await one.send(Progress("g", 2**31 - 1, shown, pace, ready))
        assert (await one.until_terminal("g"))[-1].usage.output_tokens == 50
        await one.send(Progress("g", 50, 50, 50.0))
        assert await cached(one, "next", PROMPT) == (len(PROMPT) - 1,) * 2
