"""The service holds an answer to its constraint from wherever it begins, and refuses what it cannot hold."""

from __future__ import annotations

import json
import re

import pytest

from model_runtime.errors import ConstraintError
from model_runtime.testing import ScriptedEngine, ScriptedTokenizer
from wire_protocol.messages import ChatMessage, Constraint, Error, Finished, Generate, Hello, Rejected, Tokens

TOKENIZER = ScriptedTokenizer()
PROMPT = tuple(TOKENIZER.render_chat([{"role": "user", "content": "Which gate?"}]))
SCHEMA = Constraint(
    "json_schema",
    json.dumps(
        {
            "type": "object",
            "properties": {"gate": {"enum": ["north", "süd"]}, "open": {"type": "boolean"}},
            "required": ["gate", "open"],
            "additionalProperties": False,
        }
    ),
)


def engine() -> ScriptedEngine:
    return ScriptedEngine(tokenizer=TOKENIZER, answer_length=10**6)


def nothing(*_: object) -> None:
    raise ConstraintError("nothing can follow")


def said(messages) -> str:
    ids = [token for message in messages if isinstance(message, Tokens) for token in message.ids]
    return b"".join(map(TOKENIZER.token_bytes, ids)).decode()


async def test_constraints_are_offered_to_who_can_ask_for_them(serve, device) -> None:
    running = serve(engine())
    for version, offers in ((1, ()), (2, ("constraint",))):
        async with device(running, hello=False) as one:
            await one.send(Hello(version, "test"))
            assert (await one.receive()).offers == offers


async def test_an_answer_goes_on_within_its_constraint_from_every_place(serve, device) -> None:
    running = serve(engine())
    async with device(running) as one:
        await one.send(Generate("whole", 200, prompt=PROMPT, constraint=SCHEMA))
        messages = await one.until_terminal("whole")
        whole = [token for message in messages if isinstance(message, Tokens) for token in message.ids]
        assert json.loads(said(messages))
        assert messages[-1].reason == "eos"
        for place in range(len(whole) + 1):
            name = f"from-{place}"
            await one.send(Generate(name, 200, prompt=PROMPT, output=tuple(whole[:place]), constraint=SCHEMA))
            messages = await one.until_terminal(name)
            rest = [token for message in messages if isinstance(message, Tokens) for token in message.ids]
            assert whole[:place] + rest == whole
            assert messages[-1].reason == "eos"


async def test_where_text_travels_too(serve, device) -> None:
    running = serve(engine())
    async with device(running, text=True) as one:
        for begun in ("", '{"gate": "s', '{"gate": "süd", "open": t'):
            chat = (ChatMessage("user", "Which gate?"),)
            await one.send(Generate("g", 200, messages=chat, output_text=begun, constraint=SCHEMA))
            messages = await one.until_terminal("g")
            text = begun + b"".join(message.data for message in messages if isinstance(message, Tokens)).decode()
            assert set(json.loads(text)) == {"gate", "open"}
            assert messages[-1].reason == "eos"


@pytest.mark.parametrize(
    ("constraint", "output", "reason"),
    [
        (Constraint("regex", "("), (), "unclosed group"),
        (Constraint("json_schema", "{"), (), "no JSON"),
        (Constraint("json_schema", '{"type":"objekt"}'), (), "objekt"),
        (Constraint("grammar", "start: nothing"), (), "nothing"),
        (SCHEMA, tuple(b'{"gate": 7'), "output token 9 breaks the constraint"),
    ],
)
async def test_what_cannot_be_held_is_refused(serve, device, constraint, output, reason) -> None:
    running = serve(engine())
    async with device(running) as one:
        await one.send(Generate("g", 20, prompt=PROMPT, output=output, constraint=constraint))
        refused = (await one.until_terminal("g"))[-1]
        assert isinstance(refused, Error)
        assert (refused.code, refused.retriable) == ("bad_request", False)
        assert re.search(reason, refused.message)
        await one.send(Generate("next", 3, prompt=PROMPT))
        assert isinstance((await one.until_terminal("next"))[-1], Finished)


async def test_an_engine_that_cannot_be_held_says_so(serve, device, monkeypatch) -> None:
    monkeypatch.setattr("cloud_service.scheduler.runner.Runner.holds_constraints", False)
    running = serve(engine())
    async with device(running, hello=False) as one:
        await one.send(Hello(2, "test", tokenizer=TOKENIZER.fingerprint, template=TOKENIZER.template_fingerprint))
        assert (await one.receive()).offers == ()
        await one.send(Generate("g", 20, prompt=PROMPT, constraint=SCHEMA))
        refused = (await one.until_terminal("g"))[-1]
    assert isinstance(refused, Rejected)
    assert refused.reason == "unsupported"
    assert refused.retry_after_ms is None


async def test_what_nothing_can_follow_ends_one_generation_and_no_other(serve, device, monkeypatch) -> None:
    """As where a model has no token for a character that must come."""
    running = serve(engine())
    async with device(running) as one:
        await one.send(Generate("other", 2_000, prompt=PROMPT))
        monkeypatch.setattr("model_runtime.constraint.matcher.Matcher.allowed", nothing)
        await one.send(Generate("g", 20, prompt=PROMPT, constraint=SCHEMA))
        ended = None
        while not isinstance(ended, Error):
            ended = await one.receive()
        assert (ended.id, ended.code) == ("g", "bad_request")
        assert isinstance(await one.receive(), Tokens)
