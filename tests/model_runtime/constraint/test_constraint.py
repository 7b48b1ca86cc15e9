"""A constraint leaves those tokens that may come next, whoever made the ones before; what cannot be held is refused."""

from __future__ import annotations

import json
import re
import sys

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_runtime import constraint as constraints
from model_runtime.constraint import Constraint, Grammar, JsonSchema, Regex, Watch, compile_constraint, constraint_from
from model_runtime.core import Chunk, Tokenizer
from model_runtime.errors import ConstraintError, ConstraintUnavailableError
from model_runtime.sampling import Sampler, SamplingParams
from model_runtime.testing import ScriptedEngine, ScriptedTokenizer

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"enum": ["naïve", "grün", "東京"]}, "maxItems": 3},
    },
    "required": ["name", "age", "tags"],
    "additionalProperties": False,
}
LARK = 'start: "go " DIRECTION ("," DIRECTION)*\nDIRECTION: "north" | "south"\n'
GBNF = 'root ::= "go " direction ("," direction)*\ndirection ::= "north" | "south"\n'
TOKENIZER = ScriptedTokenizer()
HELD: dict[str, tuple[Constraint, str, str]] = {
    "schema": (JsonSchema(PERSON), '{"name": "é", "age": 7, "tags": ["東京"]}', '{"name": 7'),
    "any": (JsonSchema(True), "[1, 2]", "nothing"),
    "regex": (Regex(r"[0-9]{3}-[a-f]+"), "123-abc", "12-"),
    "lark": (Grammar(LARK), "go north,south", "go west"),
    "gbnf": (Grammar(GBNF), "go north,south", "go west"),
}


def say(constraint: Constraint, params: SamplingParams, *, seed: int = 0, most: int = 400) -> tuple[str, bool]:
    """What the toy model says under a constraint, and whether it came to an end."""
    engine = ScriptedEngine(tokenizer=TOKENIZER, seed=seed, answer_length=10**9)
    tokenizer = engine.tokenizer
    sampler = Sampler(params, [1, 2, 3], compile_constraint(constraint, tokenizer).start())
    sequence, tokens, output = engine.open(), [1, 2, 3], []
    while len(output) < most:
        token = sampler.sample(engine.forward([Chunk(sequence, tokens)])[0].logits[-1], output)
        if token in tokenizer.eos_ids:
            return b"".join(map(tokenizer.token_bytes, output)).decode(), True
        output.append(token)
        tokens = [token]
    return b"".join(map(tokenizer.token_bytes, output)).decode(errors="ignore"), False


@settings(max_examples=12)
@given(st.integers(0, 10**6), st.sampled_from([0.0, 0.7, 3.0]), st.integers(0, 5))
def test_a_model_that_knows_no_json_writes_json(seed: int, temperature: float, top_k: int) -> None:
    params = SamplingParams(temperature=temperature, top_k=top_k, top_p=0.9, repetition_penalty=1.1, seed=seed)
    text, ended = say(JsonSchema(PERSON), params, seed=seed)
    assert ended
    value = json.loads(text)
    jsonschema.validate(value, PERSON)
    assert list(value) == list(PERSON["properties"])


@pytest.mark.parametrize("name", list(HELD))
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_every_kind_is_held(name: str, temperature: float) -> None:
    constraint = HELD[name][0]
    text, ended = say(constraint, SamplingParams(temperature=temperature, seed=3))
    watch = Watch(constraint)
    assert watch.push(text.encode())
    assert watch.complete or not ended


def test_an_answer_may_end_exactly_where_it_is_complete() -> None:
    tokenizer = ScriptedTokenizer()
    matcher = compile_constraint(Regex("[0-9]{1,3}"), tokenizer).start()
    digits = tokenizer.encode("123")
    for count, expected in enumerate([False, True, True, True]):
        allowed = matcher.allowed(digits[:count])
        assert allowed[tokenizer.im_end] == expected == matcher.complete
        assert not allowed[tokenizer.im_start]
    assert np.flatnonzero(matcher.allowed(digits)).tolist() == [tokenizer.im_end]


@settings(max_examples=20)
@given(st.data())
def test_a_matcher_follows_whatever_output_it_is_shown(data: st.DataObject) -> None:
    """Shorter, longer or another one: as a fresh matcher would, which is what a hand-over relies on."""
    tokenizer = TOKENIZER
    compiled = compile_constraint(JsonSchema(PERSON), tokenizer)
    texts = ['{"name": "a café", "age": 7, "tags": []}', '{"name":"東京","age":150,"tags":["naïve","grün"]}', '{"na']
    matcher = compiled.start()
    for _ in range(5):
        text = data.draw(st.sampled_from(texts)).encode()
        size = data.draw(st.integers(0, len(text)))
        output = list(text[:size]) if data.draw(st.booleans()) else tokenizer.encode(text.decode())[:size]
        assert (matcher.allowed(output) == compiled.start().allowed(output)).all()


def test_how_text_is_cut_into_tokens_changes_nothing() -> None:
    text, words = '{"name": "the crew", "age": 7, "tags": []}', ScriptedTokenizer()
    for tokenizer in (words, ScriptedTokenizer(words=("{", '"name": "t', "he", ' crew", "'))):
        matcher = compile_constraint(JsonSchema(PERSON), tokenizer).start()
        matcher.follow(tokenizer.encode(text))
        assert matcher.complete


def test_output_that_breaks_the_constraint_is_told_and_the_matcher_lives_on() -> None:
    tokenizer = ScriptedTokenizer()
    matcher = compile_constraint(Regex("ab*"), tokenizer).start()
    with pytest.raises(ConstraintError, match="output token 1 breaks"):
        matcher.allowed(tokenizer.encode("ac"))
    assert matcher.allowed(tokenizer.encode("abb"))[tokenizer.im_end]


@pytest.mark.parametrize("name", list(HELD))
def test_a_watch_follows_bytes(name: str) -> None:
    constraint, good, bad = HELD[name]
    watch = Watch(constraint)
    data = good.encode()
    for cut in range(len(data) + 1):
        assert watch.restart(b"")
        assert watch.push(data[:cut])
        assert watch.push(data[cut:])
        assert watch.complete
    assert not watch.restart(bad.encode()) or name == "regex"
    assert watch.restart(good[:3].encode())


@pytest.mark.parametrize(
    ("constraint", "reason"),
    [
        (Regex("(a"), "unclosed group"),
        (Regex(r"(?=a)b"), "look-around"),
        (JsonSchema({"type": "objekt"}), "objekt"),
        (JsonSchema({"type": "object", "unevaluatedProperties": False}), "unevaluatedProperties"),
        (JsonSchema({"not": {"type": "string"}}), "not"),
        (JsonSchema({"$ref": "https://example.org/schema"}), "not present"),  # and is not fetched
        (JsonSchema(False), "schema"),
        (Grammar("start: missing"), "missing"),
        (Grammar("what is this"), "Lark or GBNF"),
        (Grammar('root ::= "a" nothing'), "nothing"),
        (Grammar("start: <|im_end|>"), "special"),
        (Grammar("start: <[1000]>"), ""),
        (Grammar(""), "Lark or GBNF"),
    ],
)
def test_what_cannot_be_held_is_refused_with_the_reason(constraint: Constraint, reason: str) -> None:
    with pytest.raises(ConstraintError, match=f"(?i){re.escape(reason)}"):
        compile_constraint(constraint, ScriptedTokenizer())


@pytest.mark.parametrize("schema", [{"a": {1}}, {"a": float("nan")}, "{}", None, 3])
def test_what_is_no_schema_is_refused_when_it_is_made(schema: object) -> None:
    with pytest.raises(ConstraintError):
        JsonSchema(schema)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", list(HELD))
def test_a_constraint_travels_as_kind_and_text(name: str) -> None:
    constraint = HELD[name][0]
    assert constraint_from(constraint.kind, constraint.text) == constraint


def test_a_damaged_schema_is_refused() -> None:
    with pytest.raises(ConstraintError, match="no JSON"):
        constraint_from("json_schema", "{")


def test_blanks_are_bounded() -> None:
    watch = Watch(JsonSchema({"type": "object"}))
    assert watch.restart(b'{\n    "a": [1,\n')
    assert not watch.restart(b"{" + b" " * 3)
    assert not watch.restart(b"{\n" + b" " * 30)


def test_a_character_that_no_token_can_spell_is_an_error_and_no_endless_answer() -> None:
    class Letters(ScriptedTokenizer):
        def token_bytes(self, token: int) -> bytes:
            data = super().token_bytes(token)
            return data if data.isascii() else b""

    matcher = compile_constraint(Regex("é"), Letters()).start()
    with pytest.raises(ConstraintError, match="no token of this model"):
        matcher.allowed([])


def test_a_tokenizer_that_cannot_end_an_answer_is_refused() -> None:
    class Endless(ScriptedTokenizer):
        eos_ids = frozenset()  # type: ignore[assignment]

    with pytest.raises(ConstraintError, match="ends an answer"):
        compile_constraint(Regex("a"), Endless())


def test_logits_of_minus_infinity_leave_nothing_to_say() -> None:
    tokenizer = ScriptedTokenizer()
    sampler = Sampler(SamplingParams(), [], compile_constraint(Regex("a"), tokenizer).start())
    logits = np.zeros(tokenizer.vocabulary_size, dtype=np.float32)
    logits[ord("a")] = -np.inf
    with pytest.raises(ConstraintError, match="no token that may come"):
        sampler.sample(logits, [])


def test_the_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)
    assert not constraints.available()

    class Another(ScriptedTokenizer):
        pass

    with pytest.raises(ConstraintUnavailableError, match=r"pd-device\[structured\]"):
        compile_constraint(Regex("a"), Another())
    with pytest.raises(ConstraintUnavailableError, match=r"pd-device\[structured\]"):
        Watch(Regex("a"))


def test_tokenizers_are_not_kept_alive() -> None:
    import gc
    import weakref

    tokenizer: Tokenizer = ScriptedTokenizer()
    compiled = compile_constraint(Regex("a"), tokenizer)
    gone = weakref.ref(tokenizer)
    del tokenizer, compiled
    gc.collect()
    assert gone() is None
