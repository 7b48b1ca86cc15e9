"""Any request gets an answer that is not the server's own fault, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import warnings

import pytest
from hypothesis import HealthCheck, Phase, settings

from device_sdk.local_server.app import create_app
from device_sdk.local_server.extension import LocalChatRequest, LocalCompletionRequest
from device_sdk.local_server.settings import LocalSettings
from model_runtime.testing import ScriptedEngine

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import schemathesis


def schema():
    """What the app tells of itself, and the bodies, which it reads on its own so as to refuse as OpenAI does."""
    described = create_app(LocalSettings(device="m"), ScriptedEngine()).openapi()
    for path, shape in (("/v1/chat/completions", LocalChatRequest), ("/v1/completions", LocalCompletionRequest)):
        body = shape.model_json_schema(ref_template="#/components/schemas/{model}")
        described.setdefault("components", {}).setdefault("schemas", {}).update(body.pop("$defs"))
        content = {"application/json": {"schema": body}}
        described["paths"][path]["post"]["requestBody"] = {"required": True, "content": content}
    return schemathesis.openapi.from_dict(described)


SCHEMA = schema()


@pytest.fixture
def running(local):
    server = local(ScriptedEngine(answer_length=8), aliases="*")
    yield server
    asyncio.run(server.until_idle())


@SCHEMA.parametrize()
@settings(max_examples=12, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
def test_no_request_is_too_much(running, case) -> None:
    response = case.call(base_url=running.url, timeout=20)
    assert response.status_code < 500
    if response.status_code >= 400 and case.path.startswith("/v1"):
        assert set(response.json()["error"]) >= {"message", "type", "code"}
