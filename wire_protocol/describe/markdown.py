"""The generated blocks of docs/protocol.md: tables of messages, parts and close codes."""

from __future__ import annotations

from typing import Any, get_args

from wire_protocol.close_codes import CloseCode
from wire_protocol.describe.fields import fields, parts_of, summary
from wire_protocol.messages import CloudMessage, DeviceMessage


def blocks() -> dict[str, str]:
    """Each generated block of the document, by name."""
    device, cloud = get_args(DeviceMessage), get_args(CloudMessage)
    return {
        "device-messages": _sections(device),
        "cloud-messages": _sections(cloud),
        "parts": _sections(parts_of((*device, *cloud))),
        "close-codes": _close_codes(),
    }


def embed(document: str) -> str:
    """`document` with each of its generated blocks as it should be. Raises ValueError where one is missing."""
    for name, text in blocks().items():
        before, begin, rest = document.partition(f"<!-- generated: {name} -->\n")
        _, end, after = rest.partition(f"<!-- end of {name} -->")
        if not (begin and end):
            raise ValueError(f"expected a block from `<!-- generated: {name} -->` to `<!-- end of {name} -->`")
        document = f"{before}{begin}\n{text}\n{end}{after}"
    return document


def _sections(kinds: tuple[type[Any], ...]) -> str:
    return "\n".join(_section(kind) for kind in kinds)


def _section(kind: type[Any]) -> str:
    name = kind.__struct_config__.tag or kind.__name__
    rows = [
        f"| `{field.name}` | {_cell(field.type)} | {_default(field.default)} | {_cell(field.text)} |"
        for field in fields(kind)
    ]
    return "\n".join(
        [f"### `{name}`", "", summary(kind), "", "| field | type | default | meaning |", "|---|---|---|---|", *rows, ""]
    )


def _default(default: str | None) -> str:
    return "required" if default is None else f"`{default}`"


def _close_codes() -> str:
    rows = [
        f"| {code.value} | `{code.name}` | {'yes' if code.retriable else 'no'} | {_cell(code.meaning)} |"
        for code in CloseCode
    ]
    return "\n".join(["| code | name | may retry | meaning |", "|---|---|---|---|", *rows, ""])


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
