"""A constraint holds across the hand-over, at every grant, whatever travels; so do tool calls and stop strings.

Neither side's model knows JSON: what is valid is so by the constraint alone, and what is whole is so because the other
side's matcher took up where this one stopped.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import jsonschema
import pytest

from device_sdk import (
    Answer,
    CallArguments,
    CallBegun,
    CallEnded,
    Event,
    Grammar,
    HybridClient,
    JsonSchema,
    Mode,
    Only,
    PaceSettings,
    Regex,
    SamplingParams,
    Source,
    SplitSettings,
    Token,
    Tool,
    ToolCall,
)
from model_runtime.testing import Faults, ScriptedEngine, ScriptedTokenizer
from tests.device_sdk.conftest import per_token
from tests.device_sdk.form.seam import Seam, answered

QUESTION = "Describe the north gate. " * 2
SCHEMA = {
    "type": "object",
    "properties": {
        "place": {"enum": ["north gate", "café", "東京"]},
        "crew": {"type": "integer", "minimum": 0, "maximum": 99},
        "note": {"type": "string", "maxLength": 3},
    },
    "required": ["place", "crew", "note"],
    "additionalProperties": False,
}
WORDS = ScriptedTokenizer()
#: Any place between two characters is one between two of its tokens, so its model goes on from wherever it is asked to.
BYTES = ScriptedTokenizer(words=())
OTHER = ScriptedTokenizer(words=('{"', '": ', "north", " gate", '", "', "caf", "true"))
GATE = Tool(
    "gate",
    "Opens or locks a gate.",
    {
        "type": "object",
        "properties": {"side": {"enum": ["north", "süd"]}, "open": {"type": "boolean"}},
        "required": ["side", "open"],
        "additionalProperties": False,
    },
)


def cloud_engine(**model: Any) -> ScriptedEngine:
    return ScriptedEngine(tokenizer=WORDS, **{"answer_length": 10**6, **model})


def checked(answer: Answer) -> Any:
    """The answer is one value of SCHEMA, whole."""
    assert answer.report.finish_reason == "eos", answer
    value = json.loads(answer.text)
    jsonschema.validate(value, SCHEMA)
    return value


@pytest.mark.parametrize(
    "params", [SamplingParams(), SamplingParams(temperature=1.5, seed=5)], ids=["greedy", "sampled"]
)
async def test_json_is_valid_and_the_same_at_every_grant(serve, params: SamplingParams) -> None:
    running = serve(cloud_engine())
    seam = Seam(running)
    options = {"sampling": params, "response_format": JsonSchema(SCHEMA)}
    async with HybridClient(device=seam.phone(WORDS), cloud=running.url) as client:
        alone = await client.generate(QUESTION, **options, mode=Mode.ONLY_ON_DEVICE)
        checked(alone)
        # Every one; the sampled answer, whose matcher is no other, at some.
        for grant in range(0, len(alone.token_ids) + 2, 1 if params.temperature == 0 else 4):
            _, answer = await answered(client, seam, grant, QUESTION, **options)
            checked(answer)
            assert answer.token_ids == alone.token_ids
            assert answer.report.cloud_tokens == min(grant, len(alone.token_ids))
            assert answer.report.agreement in (1.0, None)
            assert not answer.report.notices


async def test_json_is_valid_at_every_grant_between_models_that_agree_on_nothing(serve) -> None:
    """Other tokenizers, other weights, another noise: text travels, and every seam is somewhere in a token."""
    running = serve(cloud_engine(seed=1))
    seam = Seam(running)
    mixed = 0
    async with HybridClient(device=seam.phone(OTHER, seed=2), cloud=running.url) as client:
        for grant in range(36):
            params = SamplingParams(temperature=2.0, seed=grant)
            _, answer = await answered(
                client, seam, grant, QUESTION, sampling=params, response_format=JsonSchema(SCHEMA)
            )
            checked(answer)
            assert not answer.report.notices
            mixed += len({span.source for span in answer.report.spans}) == 2
    assert mixed > 18


@pytest.mark.parametrize(
    ("response_format", "pattern"),
    [
        (Regex("(north|south) gate: [0-9]{2}(, café){1,3}"), r"(north|south) gate: [0-9]{2}(, café){1,3}"),
        (Grammar('start: GATE (" and " GATE)~2..3\nGATE: "north" | "süd"\n'), r"(north|süd)( and (north|süd)){2,3}"),
        (Grammar('root ::= gate (" and " gate)+ "."\ngate ::= "north" | "süd"\n'), r"(north|süd)( and (north|süd))+\."),
    ],
    ids=["regex", "lark", "gbnf"],
)
async def test_other_constraints_hold_across_the_seam(serve, response_format, pattern: str) -> None:
    running = serve(cloud_engine(seed=3))
    seam = Seam(running)
    async with HybridClient(device=seam.phone(OTHER, seed=4), cloud=running.url) as client:
        for grant in range(0, 16, 3):
            params = SamplingParams(temperature=1.0, seed=grant)
            _, answer = await answered(client, seam, grant, QUESTION, sampling=params, response_format=response_format)
            assert re.fullmatch(pattern, answer.text)
            assert answer.report.finish_reason == "eos"


@pytest.mark.parametrize("mode", list(Mode))
async def test_a_constraint_holds_in_every_mode(serve, mode: Mode) -> None:
    running = serve(cloud_engine())
    async with HybridClient(device=Seam(running).phone(WORDS), cloud=running.url) as client:
        checked(await client.generate(QUESTION, response_format=JsonSchema(SCHEMA), mode=mode))


async def test_without_an_engine_on_the_device_what_comes_is_still_looked_at(serve) -> None:
    running = serve(cloud_engine())
    async with HybridClient(cloud=running.url, mode=Mode.ONLY_IN_CLOUD) as client:
        checked(await client.generate(QUESTION, response_format=JsonSchema(SCHEMA)))


@pytest.mark.parametrize("grant", [0, 3, 50])
async def test_an_answer_that_is_cut_off_is_the_beginning_of_a_valid_one(serve, grant: int) -> None:
    running = serve(cloud_engine())
    seam = Seam(running)
    async with HybridClient(device=seam.phone(WORDS), cloud=running.url) as client:
        options = {"response_format": JsonSchema(SCHEMA)}
        _, whole = await answered(client, seam, grant, QUESTION, **options)
        _, answer = await answered(client, seam, grant, QUESTION, **options, max_tokens=9)
    assert answer.report.finish_reason == "length"
    assert len(answer.token_ids) == 9
    assert whole.text.startswith(answer.text)


@pytest.mark.parametrize("tokenizer", [WORDS, OTHER], ids=["ids", "text"])
async def test_a_cloud_that_breaks_the_constraint_costs_its_part_and_nothing_else(
    serve, tokenizer: ScriptedTokenizer, monkeypatch
) -> None:
    """It takes the constraint, and ignores it."""
    monkeypatch.setattr("cloud_service.scheduler.generation.Generation._rule", lambda generation: None)
    running = serve(cloud_engine())
    device = ScriptedEngine(tokenizer=tokenizer, answer_length=10**6, delay=per_token(0.01))
    split = SplitSettings(grant=8, max_grant=8, pace=PaceSettings(mode="off"), keep_ratio=None)
    async with HybridClient(device=device, cloud=running.url, split=split) as client:
        answer = await client.generate("Which?", response_format=JsonSchema(SCHEMA))
        checked(answer)
    assert any("breaks the constraint" in notice for notice in answer.report.notices)
    assert answer.report.cloud_tokens == 0


async def test_a_cloud_that_ends_too_early_does_not_end_the_answer(serve, monkeypatch) -> None:
    monkeypatch.setattr("cloud_service.scheduler.generation.Generation._rule", lambda generation: None)
    running = serve(cloud_engine(script=WORDS.encode('{"place": "café"')))
    seam = Seam(running)
    async with HybridClient(device=seam.phone(WORDS), cloud=running.url) as client:
        _, answer = await answered(client, seam, 50, QUESTION, response_format=JsonSchema(SCHEMA))
    assert checked(answer)["place"] == "café"
    assert answer.report.cloud_tokens
    assert any("before its constraint was satisfied" in notice for notice in answer.report.notices)


async def test_an_engine_that_fails_leaves_the_form_to_the_cloud(serve) -> None:
    running = serve(cloud_engine())
    device = ScriptedEngine(tokenizer=WORDS, answer_length=10**6)
    async with HybridClient(device=device, cloud=running.url) as client:
        device.faults = Faults(fail_at=len(device.passes) + 3)
        split = SplitSettings(grant=4, max_grant=4, pace=PaceSettings(mode="off"), keep_ratio=None)
        answer = await client.generate(QUESTION, response_format=JsonSchema(SCHEMA), split=split)
    checked(answer)
    assert answer.report.notices


# --- tools ---------------------------------------------------------------------------------------------------------


def heard(events: Sequence[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Token))


SAID = 'Let me see.\n<tool_call>\n{"name": "gate", "arguments": {"side": "süd", "open": true}}\n</tool_call>'


@pytest.mark.parametrize("tokenizer", [WORDS, BYTES], ids=["ids", "text"])
async def test_a_call_is_read_wherever_the_seam_falls(serve, tokenizer: ScriptedTokenizer) -> None:
    script = WORDS.encode(SAID)
    running = serve(cloud_engine(script=script))
    seam = Seam(running)
    mixed = 0
    async with HybridClient(device=seam.phone(tokenizer, script=tokenizer.encode(SAID)), cloud=running.url) as client:
        for grant in range(0, len(script) + 1, 5):
            events, answer = await answered(client, seam, grant, QUESTION, tools=[GATE])
            [call] = answer.tool_calls
            assert (call.name, call.arguments) == ("gate", '{"side": "süd", "open": true}')
            assert answer.text == heard(events) == "Let me see."
            [begun] = [event for event in events if isinstance(event, CallBegun)]
            [ended] = [event for event in events if isinstance(event, CallEnded)]
            pieces = [event.text for event in events if isinstance(event, CallArguments)]
            assert (begun.position, begun.id, ended.call) == (0, call.id, call)
            assert "".join(pieces) == call.arguments
            mixed += len({span.source for span in answer.report.spans}) == 2
    assert mixed > 9


@pytest.mark.parametrize("tokenizer", [WORDS, BYTES], ids=["ids", "text"])
async def test_a_required_call_is_valid_at_any_grant(serve, tokenizer: ScriptedTokenizer) -> None:
    running = serve(cloud_engine(seed=5))
    seam = Seam(running)
    async with HybridClient(device=seam.phone(tokenizer, seed=6), cloud=running.url) as client:
        for grant in range(0, 90, 30):
            params = SamplingParams(temperature=1.0, seed=grant)
            _, answer = await answered(
                client, seam, grant, QUESTION, tools=[GATE], tool_choice=Only("gate"), sampling=params
            )
            [call] = answer.tool_calls
            jsonschema.validate(call.parsed(), dict(GATE.parameters))
            assert answer.text == ""


async def test_both_sides_are_told_of_the_tools_and_the_results(serve) -> None:
    engine = cloud_engine()
    running = serve(engine)
    seam = Seam(running)
    device = seam.phone(OTHER)
    call = ToolCall("call_1", "gate", '{"side": "süd", "open": true}')
    chat = [
        {"role": "user", "content": "Open it."},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "It is stuck.", "tool_call_id": "call_1"},
    ]
    async with HybridClient(device=device, cloud=running.url) as client:
        await answered(client, seam, 3, chat, tools=[GATE], max_tokens=8)
    for side in (engine, device):
        text = b"".join(
            side.tokenizer.token_bytes(token) for chunks in side.passes for chunk in chunks for token in chunk.tokens
        ).decode(errors="replace")
        for said in ('"name": "gate"', "Opens or locks a gate.", "<tool_response>\nIt is stuck.", '"side": "süd"'):
            assert said in text


async def test_what_only_looks_like_a_call_is_told_as_text(serve) -> None:
    said = "A <tool_call> is a tag, and so is <tool_c"
    running = serve(cloud_engine(script=WORDS.encode(said)))
    seam = Seam(running)
    async with HybridClient(device=seam.phone(WORDS, script=WORDS.encode(said)), cloud=running.url) as client:
        events, answer = await answered(client, seam, 9, QUESTION, tools=[GATE])
    assert "".join(answer.text.split()) == "".join(said.split())
    assert heard(events) == answer.text
    assert answer.tool_calls == ()


async def test_a_call_that_is_cut_off_is_not_lost(serve) -> None:
    running = serve(cloud_engine(script=WORDS.encode(SAID)))
    seam = Seam(running)
    async with HybridClient(device=seam.phone(WORDS, script=WORDS.encode(SAID)), cloud=running.url) as client:
        _, answer = await answered(client, seam, 10, QUESTION, tools=[GATE], max_tokens=60)
    assert answer.report.finish_reason == "length"
    assert [call.name for call in answer.tool_calls] == ["gate"]
    assert SAID.partition('"arguments": ')[2].startswith(answer.tool_calls[0].arguments)


# --- stop strings --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tokenizer", [WORDS, BYTES], ids=["ids", "text"])
async def test_a_stop_string_is_found_wherever_the_seam_cuts_it(serve, tokenizer: ScriptedTokenizer) -> None:
    said = "The crew of the café — END OF 東京 REPORT. And more of it."
    stop = "END OF 東京 REPORT"
    running = serve(cloud_engine(script=WORDS.encode(said)))
    seam = Seam(running)
    begins = len(WORDS.encode(said[: said.index(stop)]))
    ends = len(WORDS.encode(said[: said.index(stop) + len(stop)]))
    straddled = 0
    async with HybridClient(device=seam.phone(tokenizer, script=tokenizer.encode(said)), cloud=running.url) as client:
        for grant in range(begins - 1, ends + 2):
            _, answer = await answered(client, seam, grant, QUESTION, stop=[stop])
            assert answer.text == said[: said.index(stop)]
            assert answer.report.finish_reason == "stop"
            straddled += answer.report.spans[-1].source is Source.DEVICE and grant > begins
    # Where text travels, what may begin a stop string does not leave the cloud before that is settled.
    assert straddled > (8 if tokenizer is WORDS else 0)


async def test_a_stop_string_within_a_constraint_ends_the_answer(serve) -> None:
    running = serve(cloud_engine())
    seam = Seam(running)
    async with HybridClient(device=seam.phone(WORDS), cloud=running.url) as client:
        for grant in (0, 2, 6, 20):
            _, answer = await answered(
                client, seam, grant, QUESTION, response_format=JsonSchema(SCHEMA), stop=['"crew"']
            )
            assert answer.report.finish_reason == "stop"
            assert '"place"' in answer.text
            assert '"crew"' not in answer.text
