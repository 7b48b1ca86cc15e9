"""Devices over a real WebSocket: what they are told, in which order."""

from __future__ import annotations

from model_runtime.sampling import Sampler, SamplingParams
from model_runtime.core import Chunk
from model_runtime.testing import ScriptedEngine
from wire_protocol.messages import Accepted, Finished, Generate, Sampling, Tokens


def drive(engine: ScriptedEngine, prompt: list[int], count: int, params: SamplingParams = SamplingParams()) -> list[int]:
    """What the engine says when nothing is between it and the test."""
    sequence, answer = engine.open(), []
    sampler = Sampler(params, prompt)
    logits = engine.forward([Chunk(sequence, prompt)])[0].logits[-1]
    while len(answer) < count:
        token = sampler.sample(logits, answer)
        if token in engine.tokenizer.eos_ids:
            break
        answer.append(token)
        logits = engine.forward([Chunk(sequence, [token])])[0].logits[-1]
    return answer


def ids_of(messages) -> list[int]:
    return [token for message in messages if isinstance(message, Tokens) for token in message.ids]


async def test_a_grant_of_ids(serve, device):
    running = serve()
    prompt = tuple(running.engine.tokenizer.encode("the crew of the pump"))
    async with device(running) as one:
        await one.send(Generate("g1", 8, prompt=prompt))
        messages = await one.until_terminal("g1")
    assert isinstance(messages[0], Accepted)
    assert ids_of(messages) == drive(ScriptedEngine(), list(prompt), 8)
    assert isinstance(messages[-1], Finished)
    assert messages[-1].reason == "grant"
    assert messages[-1].usage.output_tokens == 8
