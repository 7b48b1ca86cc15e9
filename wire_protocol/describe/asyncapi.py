"""The AsyncAPI 3.0 document of the protocol. Its schemas are those of `pd.v1+json`."""

from __future__ import annotations

from typing import Any, get_args

import msgspec

from wire_protocol.codec import SUBPROTOCOLS, WEBSOCKET_PATH
from wire_protocol.describe.fields import comments, parts_of, summary
from wire_protocol.messages import PROTOCOL_VERSION, CloudMessage, DeviceMessage

_SCHEMA = "#/components/schemas/{name}"


def document() -> dict[str, Any]:
    """The document, as JSON values."""
    device, cloud = get_args(DeviceMessage), get_args(CloudMessage)
    messages = {kind.__struct_config__.tag: _message(kind) for kind in (*device, *cloud)}
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "pd-device",
            "version": f"{PROTOCOL_VERSION}.0.0",
            "description": (
                "One WebSocket between a device and a cloud service, which answer together with one language model. "
                f"Subprotocol `{SUBPROTOCOLS[0]}` carries these messages as MessagePack in binary frames, "
                f"`{SUBPROTOCOLS[1]}` as JSON in text frames. See docs/protocol.md."
            ),
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": {
            "connection": {
                "address": WEBSOCKET_PATH,
                "title": "One connection, many generations",
                "messages": {tag: {"$ref": f"#/components/messages/{tag}"} for tag in messages},
                "bindings": {"ws": {"method": "GET", "headers": _UPGRADE, "bindingVersion": "0.1.0"}},
            }
        },
        "operations": {
            "fromDevice": _operation("receive", device, "What a device sends and the service receives."),
            "fromCloud": _operation("send", cloud, "What the service sends and a device receives."),
        },
        "components": {"messages": messages, "schemas": schemas()},
    }


def schemas() -> dict[str, Any]:
    """JSON Schemas of all messages and their parts, by class name; they mean the same in draft 7 and in 2020-12.

    They say all that the codec checks of a single field. The rules between fields are in the descriptions.
    """
    kinds = (*get_args(DeviceMessage), *get_args(CloudMessage))
    _, components = msgspec.json.schema_components(kinds, ref_template=_SCHEMA)
    for kind in (*kinds, *parts_of(kinds)):
        schema = components[kind.__name__]
        schema["description"] = summary(kind)
        for name, text in comments(kind).items():
            schema["properties"][name]["description"] = text
    return {name: _for_draft_7(schema) for name, schema in components.items()}


def _for_draft_7(schema: Any) -> Any:
    """AsyncAPI reads schemas as draft 7, which has no `prefixItems` and ignores whatever stands beside a `$ref`."""
    if isinstance(schema, list | tuple):  # a default may be a tuple, which JSON has not
        return [_for_draft_7(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {key: _for_draft_7(value) for key, value in schema.items()}
    if "prefixItems" in schema:  # a span, the only tuple: both its values are of one kind
        schema["items"] = schema.pop("prefixItems")[0]
    if "$ref" in schema and len(schema) > 1:
        schema["allOf"] = [{"$ref": schema.pop("$ref")}]
    return schema


def _message(kind: type[Any]) -> dict[str, Any]:
    return {
        "name": kind.__struct_config__.tag,
        "title": kind.__name__,
        "summary": summary(kind).split("\n\n")[0],
        "payload": {"$ref": _SCHEMA.format(name=kind.__name__)},
    }


def _operation(action: str, kinds: tuple[type[Any], ...], text: str) -> dict[str, Any]:
    tags = [kind.__struct_config__.tag for kind in kinds]
    return {
        "action": action,
        "summary": text,
        "channel": {"$ref": "#/channels/connection"},
        "messages": [{"$ref": f"#/channels/connection/messages/{tag}"} for tag in tags],
    }


_UPGRADE = {
    "type": "object",
    "required": ["Sec-WebSocket-Protocol"],
    "properties": {
        "Authorization": {"type": "string", "description": "`Bearer` and the key, where the service asks for one."},
        "Sec-WebSocket-Protocol": {"type": "string", "enum": list(SUBPROTOCOLS)},
    },
}
