"""Engines elsewhere are not asked for constraints: refused by name, never dropped. Tools need nothing of them."""

from __future__ import annotations

import openai
import pytest

from model_runtime.tokenizers import load_tokenizer
from wire_protocol.messages import Constraint, Generate, Rejected

from .conftest import Exchange

CHAT = [{"role": "user", "content": "Open it."}]
GATE = {"type": "function", "function": {"name": "gate"}}


async def test_a_device_that_asks_all_the_same_is_rejected(scripted, gateway, client) -> None:
    server = scripted()
    running = gateway([server.url])
    async with client(running) as one:
        assert one.welcome.offers == ()
        await one.send(Generate("g", 5, prompt=(1, 2), constraint=Constraint("regex", "a")))
        refused = (await one.until_terminal("g"))[-1]
    assert isinstance(refused, Rejected)
    assert (refused.reason, refused.retry_after_ms) == ("unsupported", None)
    assert server.bodies == []


def test_an_openai_client_is_told_what_is_missing(scripted, gateway, tiny_model) -> None:
    call = load_tokenizer(tiny_model("llama")).encode('<tool_call>{"name": "gate", "arguments": {}}</tool_call>')

    async def calls(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.pieces(call, "stop")
        await exchange.end()

    server = scripted()
    server.scripts = [calls]
    server.model = {"id": "toy", "max_model_len": 4000}
    running = gateway([server.url])
    with openai.OpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0) as api:
        with pytest.raises(openai.BadRequestError) as refused:
            api.chat.completions.create(model="toy", messages=CHAT, response_format={"type": "json_object"})
        assert (refused.value.param, refused.value.code) == ("response_format", "unsupported_parameter")
        assert server.bodies == []
        [choice] = api.chat.completions.create(model="toy", messages=CHAT, tools=[GATE], max_tokens=200).choices
    assert [made.function.name for made in choice.message.tool_calls] == ["gate"]
    assert len(server.bodies) == 1
