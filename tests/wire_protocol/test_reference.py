"""docs/protocol.md and docs/asyncapi.json say what the types say, and the schemas refuse what the codec refuses."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from jsonschema import Draft7Validator, Draft202012Validator
from jsonschema.protocols import Validator

from wire_protocol import CloseCode, CloudMessage, DeviceMessage, InvalidMessageError, JsonCodec
from wire_protocol.describe import asyncapi, markdown
from wire_protocol.describe.__main__ import main
from wire_protocol.describe.fields import fields, parts_of
from wire_protocol.testing import cloud_messages, device_messages

DOCS = Path(__file__).parents[2] / "docs"
KINDS = (*get_args(DeviceMessage), *get_args(CloudMessage))
UPDATE = "run `python -m wire_protocol.describe write docs`"

DOCUMENT = asyncapi.document()


def validator(draft: Any, kind: type[Any]) -> Validator:
    root = {**DOCUMENT["components"]["schemas"][kind.__name__], "components": DOCUMENT["components"]}
    made: Validator = draft(root)
    return made


VALIDATORS = {kind.__struct_config__.tag: validator(Draft202012Validator, kind) for kind in KINDS}
VALIDATORS_DRAFT_7 = {kind.__struct_config__.tag: validator(Draft7Validator, kind) for kind in KINDS}


def test_the_page_is_up_to_date() -> None:
    page = (DOCS / "protocol.md").read_text("utf-8")
    assert markdown.embed(page) == page, UPDATE


def test_the_asyncapi_document_is_up_to_date() -> None:
    assert json.loads((DOCS / "asyncapi.json").read_text("utf-8")) == DOCUMENT, UPDATE


def test_the_command_prints_and_writes_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["asyncapi"])
    assert json.loads(capsys.readouterr().out) == DOCUMENT
    main(["markdown"])
    assert "| 1001 | `GOING_AWAY` | yes |" in capsys.readouterr().out
    stale = re.sub(r"(?m)^\| `.*\n", "", (DOCS / "protocol.md").read_text("utf-8"))
    (tmp_path / "protocol.md").write_text(stale, "utf-8")
    main(["write", str(tmp_path)])
    for name in ("protocol.md", "asyncapi.json"):
        assert (tmp_path / name).read_bytes() == (DOCS / name).read_bytes()


def test_a_page_without_a_place_for_a_table_is_refused() -> None:
    with pytest.raises(ValueError, match="generated: device-messages"):
        markdown.embed("# The protocol\n")


def test_every_message_part_field_and_close_code_is_on_the_page() -> None:
    page = (DOCS / "protocol.md").read_text("utf-8")
    for kind in (*KINDS, *parts_of(KINDS)):
        heading = f"### `{kind.__struct_config__.tag or kind.__name__}`\n"
        assert page.count(heading) == 1
        section = page.split(heading)[1].split("###")[0]
        for name in kind.__struct_fields__:
            assert f"\n| `{name}` |" in section
    for code in CloseCode:
        assert f"| {code.value} | `{code.name}` |" in page
    links = set(re.findall(r"\]\(#([^)]+)\)", page))
    titles = re.findall(r"(?m)^#+ (.*)$", page)
    headings = {re.sub(r"[^a-z0-9_ -]", "", title.lower()).replace(" ", "-") for title in titles}
    assert links <= headings


def test_every_field_is_described_by_a_sentence() -> None:
    for kind in (*KINDS, *parts_of(KINDS)):
        for field in fields(kind):
            assert field.text[0].isupper() or field.text[0] in "0`", (kind, field)
            assert field.text.endswith("."), (kind, field)
            assert field.name == "id" or "generation that this is about" not in field.text, (kind, field)


def test_every_diagram_names_only_messages_that_exist() -> None:
    page = (DOCS / "protocol.md").read_text("utf-8")
    diagrams = re.findall(r"```mermaid\n(.*?)```", page, re.DOTALL)
    assert len(diagrams) == 5
    up = {kind.__struct_config__.tag for kind in get_args(DeviceMessage)}
    down = {kind.__struct_config__.tag for kind in get_args(CloudMessage)}
    for diagram in diagrams:
        arrows = re.findall(r"(\w)->>(\w): (\w+)", diagram)
        assert arrows
        assert ";" not in diagram, "Mermaid ends a statement there"
        assert all(word in (up if sender == "D" else down) for sender, _, word in arrows)


def test_references_lead_somewhere() -> None:
    def walk(value: Any) -> None:
        if isinstance(value, dict):
            if "$ref" in value:
                assert len(value) == 1, "draft 7 ignores what stands beside a reference"
                target: Any = DOCUMENT
                for step in value["$ref"].removeprefix("#/").split("/"):
                    target = target[step]
            for inner in value.values():
                walk(inner)
        elif isinstance(value, list):
            for inner in value:
                walk(inner)

    walk(DOCUMENT)
    operations = DOCUMENT["operations"]
    assert [len(operations[name]["messages"]) for name in ("fromDevice", "fromCloud")] == [5, 8]


def test_schemas_are_valid_schemas_in_both_drafts() -> None:
    for schema in DOCUMENT["components"]["schemas"].values():
        Draft7Validator.check_schema(schema)
        Draft202012Validator.check_schema(schema)


@given(message=device_messages() | cloud_messages())
def test_schemas_accept_every_message(message: DeviceMessage | CloudMessage) -> None:
    value = json.loads(JsonCodec().encode(message))
    VALIDATORS[value["type"]].validate(value)
    VALIDATORS_DRAFT_7[value["type"]].validate(value)


_CHANGES = (
    st.none()
    | st.booleans()
    | st.integers(-2, 2)
    | st.sampled_from([17, 101, 65_536, 100_001, 2**31 - 1, 2**31, 2**63 - 1, 2**63])
    | st.sampled_from([-0.5, 0.5, 1.5, 100.5, 2.0e9 + 0.5])  # a schema takes 2.0 for an integer, the codec does not
    | st.text(max_size=3)
    | st.sampled_from(["x" * 65, "x" * 129, "x" * 257, "x" * 2_001, "a\n", "a b"])
    | st.lists(st.integers(-1, 3) | st.text(max_size=1) | st.lists(st.integers(-1, 3), max_size=3), max_size=3)
    | st.dictionaries(st.text(max_size=2), st.integers(0, 1), max_size=2)
)


@settings(max_examples=200)
@given(data=st.data(), message=device_messages() | cloud_messages())
def test_schemas_and_codec_agree_on_what_is_refused(data: st.DataObject, message: DeviceMessage | CloudMessage) -> None:
    """After one change anywhere in a message. Rules between fields are the codec's alone."""
    value = json.loads(JsonCodec().encode(message))
    tag = value["type"]
    place = value
    while isinstance(place, dict | list) and place:
        key = data.draw(st.sampled_from(list(place) if isinstance(place, dict) else range(len(place))))
        if not isinstance(place[key], dict | list) or not place[key] or data.draw(st.booleans()):
            break
        place = place[key]
    else:
        return
    match data.draw(st.sampled_from(["change", "remove", "add"])):
        case "change":
            place[key] = data.draw(_CHANGES)
        case "remove":
            del place[key]
        case _ if isinstance(place, dict):
            place[data.draw(st.sampled_from(["grant", "seed", "keep", "extra"]))] = data.draw(_CHANGES)
    assume(value.get("type") == tag)  # another type is another schema
    refusal = refused_by_codec(message, value)
    if refusal is not None and is_between_fields(refusal):
        return
    assume("data" not in value or not isinstance(value["data"], str) or refusal is None)  # schemas do not read base64
    assert VALIDATORS[tag].is_valid(value) == (refusal is None), refusal
    assert VALIDATORS_DRAFT_7[tag].is_valid(value) == (refusal is None), refusal


def refused_by_codec(message: DeviceMessage | CloudMessage, value: Any) -> InvalidMessageError | None:
    decode = JsonCodec().decode_device if isinstance(message, DeviceMessage) else JsonCodec().decode_cloud
    try:
        decode(json.dumps(value))
    except InvalidMessageError as error:
        return error
    return None


def is_between_fields(refusal: InvalidMessageError) -> bool:
    rules = [
        "exactly one of",
        "goes with",
        "at least one token",
        "a start before its end",
        "where the last one ends",
        "the prompt's length",
    ]
    return any(rule in str(refusal) for rule in rules)
