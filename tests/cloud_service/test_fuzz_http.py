"""Any request over HTTP gets an answer that is not the service's own fault, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import warnings

import pytest
from hypothesis import HealthCheck, Phase, settings

from cloud_service.app import create_app
from cloud_service.settings import Settings
from http_api.openai.chat import ChatRequest
from model_runtime.testing import ScriptedEngine

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import schemathesis


def schema():
    """What the app tells of itself, and the body, which it reads on its own so as to refuse as OpenAI does."""
    described = create_app(Settings(model="m"), ScriptedEngine()).openapi()
    body = ChatRequest.model_json_schema(ref_template="#/components/schemas/{model}")
    described.setdefault("components", {}).setdefault("schemas", {}).update(body.pop("$defs"))
    content = {"application/json": {"schema": body}}
    described["paths"]["/v1/chat/completions"]["post"]["requestBody"] = {"required": True, "content": content}
    return schemathesis.openapi.from_dict(described)


SCHEMA = schema()


@pytest.fixture
def running(serve):
    """Nothing is left in it when the requests are over."""
    service = serve(model_name="toy", max_grant=20)
    yield service
    asyncio.run(service.emptied())


def test_the_schema_knows_every_endpoint():
    assert {f"{one.ok().method.upper()} {one.ok().path}" for one in SCHEMA.get_all_operations()} == {
        "GET /health",
        "GET /ready",
        "GET /metrics",
        "GET /v1/models",
        "POST /v1/chat/completions",
    }


@SCHEMA.parametrize()
@settings(max_examples=20, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
def test_no_request_is_too_much(running, case):
    response = case.call(base_url=running.url, timeout=20)
    assert response.status_code < 500
    if response.status_code >= 400 and case.path.startswith("/v1"):
        assert set(response.json()["error"]) >= {"message", "type", "code"}
