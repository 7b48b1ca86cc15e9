"""What cannot be held is refused before anything is started, and a service that cannot hold it is not asked."""

from __future__ import annotations

import json

import pytest

from device_sdk import (
    ConstraintError,
    ConstraintUnavailableError,
    GenerationFailedError,
    Grammar,
    HybridClient,
    JsonSchema,
    Mode,
    Only,
    Regex,
    SyncHybridClient,
    Tool,
)
from device_sdk.form import form_of
from device_sdk.watching import CloudWatch
from model_runtime.constraint import Watch
from model_runtime.errors import BadInputError
from model_runtime.testing import ScriptedEngine, ScriptedTokenizer
from tests.device_sdk.conftest import per_token
from wire_protocol.messages import Tokens

PUMP = Tool("pump", parameters={"type": "object", "properties": {}, "additionalProperties": False})
SHORT = {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"], "additionalProperties": False}


@pytest.fixture
def no_constraints(monkeypatch: pytest.MonkeyPatch) -> None:
    """A service without the library: the device, in the same process, has it."""
    monkeypatch.setattr("cloud_service.scheduler.runner.Runner.holds_constraints", False)


async def test_a_service_that_cannot_hold_it_is_not_asked_and_the_device_answers(serve, no_constraints) -> None:
    running = serve(ScriptedEngine(answer_length=10**6))
    device = ScriptedEngine(answer_length=10**6, delay=per_token(0.005))
    async with HybridClient(device=device, cloud=running.url) as client:
        answer = await client.generate("Which?", response_format=JsonSchema(SHORT))
        assert set(json.loads(answer.text)) == {"a"}
        assert answer.report.cloud_tokens == 0
        assert any(notice.startswith("cloud_refused: unsupported") for notice in answer.report.notices)
        free = await client.generate("Which?", max_tokens=5)  # the connection lives on
        assert free.report.cloud_tokens


async def test_without_a_device_that_is_an_error_and_no_free_answer(serve, no_constraints) -> None:
    running = serve(ScriptedEngine())
    async with HybridClient(cloud=running.url, mode=Mode.ONLY_IN_CLOUD) as client:
        with pytest.raises(GenerationFailedError, match="cannot hold an answer to a JSON schema"):
            await client.generate("Which?", response_format=JsonSchema(SHORT))


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"response_format": Regex("(")}, ConstraintError),
        ({"response_format": JsonSchema({"not": {}})}, ConstraintError),
        ({"response_format": Grammar("nonsense")}, ConstraintError),
        ({"tool_choice": "required"}, BadInputError),
        ({"tools": [PUMP], "tool_choice": Only("valve")}, BadInputError),
        ({"tools": [PUMP, PUMP]}, BadInputError),
        ({"tools": [PUMP], "tool_choice": "required", "response_format": Regex("a")}, ConstraintError),
    ],
)
async def test_what_cannot_be_held_is_refused_before_anything_is_started(options, error) -> None:
    async with HybridClient(device=ScriptedEngine(), mode=Mode.ONLY_ON_DEVICE) as client:
        with pytest.raises(error):
            await client.generate("Which?", **options)


async def test_the_missing_extra_is_named_and_free_answers_need_none(monkeypatch) -> None:
    monkeypatch.setattr("model_runtime.constraint.library.available", lambda: False)
    async with HybridClient(device=ScriptedEngine(), mode=Mode.ONLY_ON_DEVICE) as client:
        with pytest.raises(ConstraintUnavailableError, match=r"pip install 'pd-device\[structured\]'"):
            await client.generate("Which?", response_format=Regex("a"))
        answer = await client.generate("Which?", tools=[PUMP], max_tokens=3)
    assert len(answer.token_ids) == 3


def test_the_sync_twin_takes_the_same() -> None:
    with SyncHybridClient(device=ScriptedEngine(answer_length=10**6), mode=Mode.ONLY_ON_DEVICE) as client:
        assert client.generate("Which?", response_format=Regex("ab?c")).text in ("ac", "abc")
        events = list(client.stream("Which?", tools=[PUMP], tool_choice="required", max_tokens=400))
    assert {call.name for call in events[-1].answer.tool_calls} == {"pump"}


def test_special_tokens_are_no_part_of_a_constrained_answer() -> None:
    tokenizer = ScriptedTokenizer()
    watch = CloudWatch(Watch(Regex("a+")), tokenizer)
    watch.begin((ord("a"),), "")
    assert watch.objection(Tokens("g", 1, ids=(ord("a"),))) is None
    assert watch.unfinished() is None
    assert watch.objection(Tokens("g", 2, ids=(tokenizer.im_start,)))


def test_a_watch_goes_on_in_the_middle_of_a_character() -> None:
    tokenizer = ScriptedTokenizer()
    watch = CloudWatch(Watch(Regex("é+")), tokenizer)
    data = "éé".encode()
    watch.begin(tuple(data[:3]), "é")
    assert watch.unfinished()
    assert watch.objection(Tokens("g", 3, ids=(data[3],))) is None
    assert watch.unfinished() is None
    watch.begin(None, "é")
    assert watch.objection(Tokens("g", 0, count=1, data=data[:1])) is None


def test_a_free_form_needs_no_library(monkeypatch) -> None:
    monkeypatch.setattr("model_runtime.constraint.library.available", lambda: False)
    form = form_of(None, [PUMP], "auto", ScriptedTokenizer())
    assert (form.constraint, form.compiled, form.rule(), form.watch()) == (None, None, None, None)
    assert form_of(None, [PUMP], "none", None).reader() is None
