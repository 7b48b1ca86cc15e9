"""Who may open a device connection, and what `hello` is answered with."""

from __future__ import annotations

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from model_runtime.testing import ScriptedEngine, ScriptedTokenizer
from wire_protocol.close_codes import CloseCode
from wire_protocol.messages import PROTOCOL_VERSION, Error, Generate, Hello, Welcome

KEY = "correct-horse-battery"


async def closing(device) -> tuple[Error, int]:
    """The only thing that is still said, an error, and the close code."""
    [error], code = await device.until_closed()
    assert isinstance(error, Error)
    return error, code


async def test_welcome_says_what_is_served_and_within_which_limits(serve, device):
    running = serve(model_name="toy", max_grant=77, max_prompt_tokens=55, max_generations=3, max_message_bytes=4096)
    info = running.engine.info
    async with device(running, hello=False) as one:
        welcome = await one.hello(running.engine)
    assert isinstance(welcome, Welcome)
    assert (welcome.version, welcome.model, welcome.travel) == (1, "toy", "ids")
    assert (welcome.tokenizer, welcome.template) == (info.tokenizer_fingerprint, info.template_fingerprint)
    limits = welcome.limits
    assert (limits.max_grant, limits.max_prompt_tokens) == (77, 55)
    assert (limits.max_generations, limits.max_message_bytes) == (3, 4096)


async def test_text_travels_where_tokenizers_differ_or_the_device_has_none(serve, device):
    running = serve()
    other = ScriptedEngine(tokenizer=ScriptedTokenizer([" other", " words"]))
    for engine in (other, None):
        async with device(running, hello=False) as one:
            assert (await one.hello(engine)).travel == "text"


async def test_a_newer_client_is_answered_in_the_service_s_version(serve, device):
    running = serve()
    async with device(running, hello=False) as one:
        await one.send(Hello(9, "test"))
        assert (await one.receive()).version == PROTOCOL_VERSION


async def test_a_model_that_is_not_served_here(serve, device):
    running = serve(model_name="toy")
    async with device(running, hello=False) as one:
        await one.send(Hello(1, "test", model="gpt"))
        error, code = await closing(one)
    assert (error.code, code) == ("model", CloseCode.MODEL)
    assert "'toy'" in error.message


async def test_the_first_message_must_be_hello(serve, device):
    running = serve()
    async with device(running, hello=False) as one:
        await one.send(Generate("g1", 1, prompt=(1,)))
        error, code = await closing(one)
    assert (error.id, error.code, code) == ("", "bad_message", CloseCode.BAD_HELLO)


async def test_a_client_that_says_nothing_is_dropped(serve, device):
    running = serve(hello_timeout_ms=50.0)
    async with device(running, hello=False) as one:
        error, code = await closing(one)
    assert code == CloseCode.BAD_HELLO
    assert "in time" in error.message


async def test_garbage_instead_of_hello(serve, device):
    running = serve()
    async with device(running, hello=False) as one:
        await one.socket.send(b"\xc1\x00garbage")
        error, code = await closing(one)
    assert (error.code, code) == ("bad_message", CloseCode.INVALID_PAYLOAD)


async def test_a_second_hello_is_out_of_order(serve, device):
    running = serve()
    async with device(running) as one:
        await one.send(Hello(1, "test"))
        error, code = await closing(one)
    assert (error.code, code) == ("bad_message", CloseCode.POLICY_VIOLATION)


async def test_an_unknown_subprotocol_is_refused_at_the_upgrade(serve):
    running = serve()
    for options in ({"subprotocols": ["chat"]}, {}):
        with pytest.raises(InvalidStatus) as refused:
            async with connect(running.ws_url, **options):
                pass
        assert refused.value.response.status_code == 400
        assert b"pd.v1" in refused.value.response.body


@pytest.mark.parametrize("header", [None, "Bearer wrong-key-of-same-len", f"Basic {KEY}", "Bearer", f"bearer{KEY}"])
async def test_a_wrong_key_is_refused_at_the_upgrade(serve, caplog, header):
    running = serve(keys={"alice": KEY})
    headers = {} if header is None else {"authorization": header}
    with pytest.raises(InvalidStatus) as refused:
        async with connect(running.ws_url, subprotocols=["pd.v1"], additional_headers=headers):
            pass
    assert refused.value.response.status_code == 401
    assert refused.value.response.headers["www-authenticate"] == "Bearer"
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_a_right_key_opens(serve, device):
    running = serve(keys={"bob": "another-key-entirely", "alice": KEY})
    async with device(running, additional_headers={"authorization": f"Bearer {KEY}"}) as one:
        await one.send(Generate("g1", 1, prompt=(1, 2)))
        assert (await one.until_terminal("g1"))[-1].reason == "grant"


async def test_a_request_that_is_no_upgrade_gets_an_answer(serve, http):
    running = serve()
    assert http(running, "/v1/pd")[0] == 404
