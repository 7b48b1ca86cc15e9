"""A real vLLM elsewhere, on this machine's CPU: `make test-vllm`, which installs it on its own. Some minutes, 3 GB."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest

from cloud_service.service import Serving
from model_runtime.tokenizers import load_tokenizer
from tests.cloud_service.conftest import _device as connected
from wire_protocol.messages import Extend, Finished, Generate, Hello, Rejected, Sampling, Stop, Tokens, terminal

PYTHON = os.environ.get("PD_VLLM_PYTHON", "")
MODEL = Path(__file__).parents[3] / "demos/models/device"
#: It compiles kernels at its first start.
PATIENCE = 400

pytestmark = [
    pytest.mark.skipif(not PYTHON, reason="vLLM is not installed: `make test-vllm` does that and sets PD_VLLM_PYTHON"),
    pytest.mark.timeout(PATIENCE + 60),
    pytest.mark.xdist_group("vllm"),
]


@pytest.fixture(scope="module")
def vllm(tmp_path_factory):
    """The URL of a vLLM process with the bundled device model."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    # `vllm serve` looks for the metadata of a package that is called vllm, and this one is not.
    command = [PYTHON, "-m", "vllm.entrypoints.launchers.api_server.entry", "--model", str(MODEL), "--port", str(port)]
    options = ["--served-model-name", "toy", "--dtype", "bfloat16", "--enforce-eager", "--max-model-len", "2048"]
    offers = ["--scheduling-policy", "priority", "--enable-prompt-tokens-details"]
    environment = {**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1"}
    with (
        (tmp_path_factory.mktemp("vllm") / "log").open("w+") as log,
        subprocess.Popen([*command, *options, *offers], stdout=log, stderr=log, env=environment) as process,
    ):
        try:
            url, until = f"http://127.0.0.1:{port}", time.monotonic() + PATIENCE
            while not get(f"{url}/health"):
                if process.poll() is not None or time.monotonic() > until:
                    log.seek(0)
                    pytest.fail(f"vLLM did not start: {log.read()[-3000:]}")
                time.sleep(1)
            yield url
        finally:
            process.terminate()


def get(url: str) -> str | None:
    try:
        with urllib.request.urlopen(url, timeout=5) as response:  # noqa: S310 - the address is ours
            return str(response.read(), "utf-8") or "ok"
    except OSError:
        return None


def gauge(vllm: str, name: str) -> float:
    lines = (get(f"{vllm}/metrics") or "").splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith((f"{name} ", f"{name}{{")))


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(MODEL)


@pytest.fixture
def prompt(tokenizer) -> tuple[int, ...]:
    log = "\n".join(f"{number} Mira Nagy locked the north gate." for number in range(400, 440))
    return tuple(tokenizer.render_chat([{"role": "user", "content": f"{log}\n\nWho locked the north gate?"}]))


@pytest.fixture
def over_vllm(vllm, gateway, tokenizer):
    """`running, connect`: a gateway over vLLM, and how a device connects to it."""
    running = gateway([vllm], model=str(MODEL), linger_ms=2_000.0)
    assert isinstance(running.service.state, Serving), running.service.state

    async def hello(one):
        await one.send(Hello(1, "test", "toy", tokenizer.fingerprint, tokenizer.template_fingerprint))
        return await one.receive()

    return running, lambda: connected(running, hello=False), hello


async def test_ids_travel_both_ways_and_a_prompt_is_cached(over_vllm, prompt, caplog):
    running, connect, hello = over_vllm
    [offer] = running.service.state.desk.backend._pool.offers
    assert (offer.dialect.name, offer.ids_in, offer.ids_out, offer.usage, offer.priority) == ("vLLM", *[True] * 4)
    assert offer.context_length == 2048
    answers = []
    async with connect() as one:
        welcome = await hello(one)
        assert (welcome.travel, welcome.model) == ("ids", "toy")
        for name in ("a", "b"):
            await one.send(Generate(name, 8, prompt=prompt))
            messages = await one.until_terminal(name)
            answers.append([token for message in messages if isinstance(message, Tokens) for token in message.ids])
            assert isinstance(messages[-1], Finished)
            assert messages[-1].usage.output_tokens == len(answers[-1]) <= 8
    assert answers[0] == answers[1]
    assert messages[-1].usage.cached_tokens > 0


async def test_a_grant_is_extended(over_vllm, prompt):
    _, connect, hello = over_vllm
    async with connect() as one:
        await hello(one)
        sampling = Sampling(temperature=1.0, top_k=50, min_p=0.01, repetition_penalty=1.05, seed=3)
        await one.send(Generate("a", 2, prompt=prompt, sampling=sampling))
        await one.send(Extend("a", 6))
        ended = (await one.until_terminal("a"))[-1]
    assert ended.reason in ("grant", "eos")
    assert ended.usage.output_tokens == 6 or ended.reason == "eos"


async def test_leaving_ends_the_work(over_vllm, vllm, prompt):
    _, connect, hello = over_vllm
    async with connect() as one:
        await hello(one)
        await one.send(Generate("a", 1500, prompt=prompt, sampling=Sampling(temperature=2.0)))
        while not isinstance(said := await one.receive(), Tokens):
            assert not terminal(said), said
        await one.send(Stop("a", "taken_over"))
        assert (await one.until_terminal("a"))[-1].reason in ("stopped", "eos")
    # An abort is in no counter of requests: what runs, and what is generated, tell.
    async with asyncio.timeout(20):
        while gauge(vllm, "vllm:num_requests_running"):  # noqa: ASYNC110 - nobody announces it
            await asyncio.sleep(0.2)
    made = gauge(vllm, "vllm:generation_tokens_total")
    await asyncio.sleep(1)
    assert gauge(vllm, "vllm:generation_tokens_total") == made


async def test_what_does_not_fit_is_refused_here_and_not_clipped_there(over_vllm, prompt):
    _, connect, hello = over_vllm
    async with connect() as one:
        await hello(one)
        await one.send(Generate("a", 2048 - len(prompt) + 1, prompt=prompt))
        refused = (await one.until_terminal("a"))[-1]
    assert (type(refused), refused.reason) == (Rejected, "too_long")
