"""The whole service with real engine processes: over WebSocket and OpenAI's API, with what `/ready`, `/health` and
`/metrics` say meanwhile."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable

import httpx
import pytest
from websockets.asyncio.client import connect

from cloud_service.app import create_app
from cloud_service.pool.backend import PoolBackend
from cloud_service.server import CloudServer
from cloud_service.service import Broken, Service, Serving
from cloud_service.settings import Settings
from http_api.serving import listen
from http_api.settings import SettingsError
from model_runtime.core import Chunk
from model_runtime.loading import load_engine, load_tokenizer_of
from model_runtime.sampling import Sampler, SamplingParams
from wire_protocol.codec import WEBSOCKET_PATH, codec_for
from wire_protocol.messages import Finished, Generate, Hello, Refine, Refinement, Sampling, Tokens, terminal

# Processes take seconds to start, and minutes where the machine is busy with something else.
pytestmark = pytest.mark.timeout(400)
PATIENCE = 90
PROMPT = tuple(range(32, 96))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


def said_alone(model, grant: int, prompt: tuple[int, ...] = PROMPT) -> list[int]:
    with load_engine(model, threads=1, max_sequences=1) as engine:
        sampler = Sampler(SamplingParams(temperature=0.7, seed=11), prompt)
        sequence, tokens, output = engine.open(), list(prompt), []
        while len(output) < grant:
            [result] = engine.forward([Chunk(sequence, tokens)])
            output.append(sampler.sample(result.logits[-1], output))
            tokens = output[-1:]
    return output


async def answer(
    url: str, prints: tuple[str, str], grant: int, prompt: tuple[int, ...] = PROMPT, refine: Refine | None = None
) -> tuple[list[int], Finished, list[int]]:
    """The tokens, the last word, and what of the prompt they come from."""
    codec, ids, kept = codec_for("pd.v1"), list[int](), list(prompt)
    async with asyncio.timeout(PATIENCE), connect(url, subprotocols=["pd.v1"]) as socket:
        await socket.send(codec.encode(Hello(1, "test", "", *prints)))
        await socket.recv()
        sampling = Sampling(temperature=0.7, seed=11)
        await socket.send(codec.encode(Generate("g", grant, prompt=prompt, sampling=sampling, refine=refine)))
        while not terminal(message := codec.decode_cloud(await socket.recv())):
            if isinstance(message, Tokens):
                ids += message.ids
            elif isinstance(message, Refinement) and message.reread:
                assert not ids
                kept = [token for start, stop in message.keep for token in prompt[start:stop]]
    assert isinstance(message, Finished), message
    return ids, message, kept


async def test_a_service_of_two_processes(tiny_model):
    model = tiny_model("llama") / "model.gguf"
    settings = Settings(
        model=str(model),
        port=0,
        threads=1,
        instances=2,
        roles="prefill=1,decode=1",
        max_sequences=2,
        kept_sequences=2,
        linger_ms=0.0,
        drain_ms=2_000.0,
        refine="head-tail",
    )
    app = create_app(settings)
    service: Service = app.state.service
    server = CloudServer(app, service, settings)
    with listen("127.0.0.1", 0) as listener:
        host, port = listener.getsockname()
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        async with httpx.AsyncClient(base_url=f"http://{host}:{port}", timeout=PATIENCE) as http:
            try:
                await until(lambda: server.started)
                assert (await http.get("/ready")).status_code == 503, "it answers while it loads, and says so"
                async with asyncio.timeout(PATIENCE):
                    await service.settled.wait()
                assert isinstance(service.state, Serving), service.state
                assert (await http.get("/ready")).status_code == 200
                backend = service.state.desk.backend
                assert isinstance(backend, PoolBackend)
                await until(lambda: all(instance.ready for instance in backend.instances))

                tokenizer = load_tokenizer_of(model)
                prints = tokenizer.fingerprint, tokenizer.template_fingerprint
                url = f"ws://{host}:{port}{WEBSOCKET_PATH}"
                ids, finished, _ = await answer(url, prints, 24)
                expected = await asyncio.to_thread(said_alone, model, 24)
                # It may say that it is done before: then both do.
                assert ids == expected[: len(ids)]
                assert len(ids) == 24 or finished.reason == "eos"
                assert finished.usage.prompt_tokens == len(PROMPT)

                lines = tuple(tokenizer.encode("".join(f"ab cd {number}.\n" for number in range(8))))
                reread, finished, kept = await answer(url, prints, 24, lines, Refine(0.5, reread=True))
                assert 0 < len(kept) < len(lines)
                assert reread == (await asyncio.to_thread(said_alone, model, 24, tuple(kept)))[: len(reread)]
                assert reread
                assert finished.usage.prompt_tokens == len(lines)

                [card] = (await http.get("/v1/models")).json()["data"]
                body = {
                    "model": card["id"],
                    "messages": [{"role": "user", "content": "ab"}],
                    "max_tokens": 12,
                    "seed": 1,
                }
                reply = await http.post("/v1/chat/completions", json=body | {"prompt_cache_key": "letters"})
                assert reply.status_code == 200
                assert reply.json()["usage"]["completion_tokens"] > 0

                metrics = (await http.get("/metrics")).text
                assert 'pd_instance_up{engine="0",role="prefill"} 1.0' in metrics
                assert 'pd_moved_requests_total{cause="hand-over"}' in metrics

                for instance in backend.instances:
                    os.kill(instance.pid, signal.SIGKILL)
                await until(lambda: not backend.ready())
                assert (await http.get("/ready")).status_code == 503
                assert (await http.get("/health")).status_code == 200, "they will be back"
                await until(lambda: all(instance.ready for instance in backend.instances))
                assert (await answer(url, prints, 24))[0] == ids
            finally:
                server.should_exit = True
                await serving
    assert all(instance.pid is None for instance in backend.instances)


async def test_a_model_that_is_not_there_breaks_the_service(tmp_path):
    app = create_app(Settings(model=str(tmp_path / "none.gguf"), instances=2))
    service: Service = app.state.service
    async with app.router.lifespan_context(app), asyncio.timeout(PATIENCE):
        await service.settled.wait()
        assert isinstance(service.state, Broken)
        assert not service.state.loaded
        assert "none.gguf is not there" in service.state.cause


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"roles": "prefill=1,decode=1"}, "`instances`, which is not set"),
        ({"instances": "2", "roles": "prefill=2"}, "go together"),
        ({"instances": "2", "roles": "prefill=1,decode=2"}, "there are 2"),
        ({"instances": "2", "roles": "prefil=1"}, "roles"),
        ({"instances": "0"}, "greater than or equal to 1"),
        ({"instances": "2", "upstream": "openai", "upstream_urls": "http://a"}, "set one"),
    ],
)
def test_settings_that_cannot_be(options, words):
    from cloud_service.settings import load_settings

    with pytest.raises(SettingsError, match=words):
        load_settings(None, {"model": "m", **options})


def test_roles_as_a_table_and_as_a_flag(tmp_path):
    from cloud_service.settings import load_settings

    file = tmp_path / "cloud.toml"
    file.write_text('model = "m"\ninstances = 3\nroles = {prefill = 1, decode = 2}\n')
    from_file = load_settings(file, {})
    from_flags = load_settings(None, {"model": "m", "instances": "3", "roles": "prefill=1, decode=2"})
    assert from_file.roles == from_flags.roles == {"prefill": 1, "decode": 2}
