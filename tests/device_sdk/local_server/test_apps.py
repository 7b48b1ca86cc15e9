"""Programs that know OpenAI's API and nothing of this one: LangChain's ChatOpenAI and simonw's `llm`."""

from __future__ import annotations

import functools
import json
import operator
from pathlib import Path

import pytest

from model_runtime.testing import ScriptedEngine
from tests.device_sdk.conftest import PROMPT, per_token
from tests.device_sdk.local_server.conftest import MODEL, says

TEXT = "Der grüne Wagen, 東京 ✓ — naïve café.\n"


@pytest.fixture
def split_server(local, serve):
    """A device and a cloud that say TEXT together."""
    return local(says(TEXT, delay=per_token(0.001)), cloud=serve(says(TEXT)).url)


class TestLangChain:
    @pytest.fixture
    def made(self):
        """By server, a ChatOpenAI."""
        chat = pytest.importorskip("langchain_openai", reason="langchain-openai is not installed").ChatOpenAI

        def make(server):
            extra = {"pd_device": {"grant": 3}}
            return chat(base_url=f"{server.url}/v1", api_key="none", model=MODEL, temperature=0, extra_body=extra)

        return make

    @pytest.fixture
    def model(self, split_server, made):
        return made(split_server)

    def test_invoke(self, model) -> None:
        message = model.invoke([("system", "Be brief."), ("human", PROMPT)])
        assert message.content == TEXT
        assert message.usage_metadata["output_tokens"] == len(ScriptedEngine().tokenizer.encode(TEXT))
        assert message.response_metadata["finish_reason"] == "stop"

    def test_stream(self, model) -> None:
        chunks = list(model.stream(PROMPT, stream_usage=True))
        assert "".join(chunk.text for chunk in chunks) == TEXT
        assert sum(chunk.usage_metadata["output_tokens"] for chunk in chunks if chunk.usage_metadata) > 0

    async def test_async(self, model) -> None:
        assert (await model.ainvoke(PROMPT)).content == TEXT
        assert "".join([chunk.text async for chunk in model.astream(PROMPT)]) == TEXT
        await model.root_async_client.close()

    def test_batch(self, model) -> None:
        assert [message.content for message in model.batch(["one", "two"])] == [TEXT, TEXT]

    def test_tools_and_structured_output(self, local, made) -> None:
        """As its agents ask: bound functions, a forced one, a schema that the answer must be of."""
        call = json.dumps({"name": "weather", "arguments": {"city": "東京"}})
        server = local(says(f"<tool_call>\n{call}\n</tool_call>"))
        schema = {"title": "weather", "description": "of a city", "type": "object"}
        schema |= {"properties": {"city": {"type": "string"}}, "required": ["city"]}
        model = made(server)
        message = model.bind_tools([schema]).invoke("How is it there?")
        assert [(one["name"], one["args"]) for one in message.tool_calls] == [("weather", {"city": "東京"})]
        chunks = model.bind_tools([schema]).stream("How is it there?")
        assert functools.reduce(operator.add, chunks).tool_calls[0]["args"] == {"city": "東京"}

        pytest.importorskip("llguidance", reason="the extra `structured` is not installed")
        # A model without a mind of its own ends no string that it may go on with.
        schema["properties"] = {"city": {"enum": ["Basel", "Genève"]}}
        model = made(local())
        for method in ("function_calling", "json_schema"):
            found = model.with_structured_output({**schema, "additionalProperties": False}, method=method).invoke("?")
            assert found["city"] in ("Basel", "Genève")


class TestLlm:
    """The command, configured as for any OpenAI-compatible server."""

    @pytest.fixture
    def llm(self, split_server, tmp_path: Path, monkeypatch):
        command = pytest.importorskip("llm.cli", reason="llm is not installed").cli
        from click.testing import CliRunner

        entry = {"model_id": "mine", "model_name": MODEL, "api_base": f"{split_server.url}/v1", "api_key_name": "none"}
        (tmp_path / "extra-openai-models.yaml").write_text(json.dumps([entry]))
        monkeypatch.setenv("LLM_USER_PATH", str(tmp_path))

        def run(*arguments: str) -> str:
            done = CliRunner().invoke(command, [*arguments, "-m", "mine", "--key", "none"], catch_exceptions=False)
            assert done.exit_code == 0, done.output
            return done.stdout.strip()

        return run

    def test_a_conversation(self, llm) -> None:
        assert llm("prompt", PROMPT, "-s", "Be brief.") == TEXT.strip()
        assert llm("prompt", "And then?", "-c", "--no-stream", "-o", "temperature", "0") == TEXT.strip()
