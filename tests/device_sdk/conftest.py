"""A client under test: a real service in a thread, a bad network before it, an engine of known speed on the device."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from model_runtime.core import Chunk, Message
from model_runtime.sampling import Sampler, SamplingParams
from model_runtime.testing import ScriptedEngine
from tests.cloud_service.conftest import serve

__all__ = ["serve"]

PROMPT = "Tell me about the pump at the north gate, 東京 and the café. " * 8


def per_token(seconds: float) -> Callable[[Sequence[Chunk]], float]:
    """A pass takes so long for each of its tokens."""
    return lambda chunks: seconds * sum(len(chunk.tokens) for chunk in chunks)


def alone(
    messages: Sequence[Message], count: int = 512, params: SamplingParams | None = None, **model: object
) -> tuple[int, ...]:
    """What such a model says to `messages` in a sequence of its own."""
    engine = ScriptedEngine(**model)  # type: ignore[arg-type]
    prompt = engine.tokenizer.render_chat(messages)
    sampler, output, sequence = Sampler(params or SamplingParams(), prompt), [], engine.open()
    tokens: Sequence[int] = prompt
    while len(output) < count:
        token = sampler.sample(engine.forward([Chunk(sequence, tokens)])[0].logits[-1], output)
        if token in engine.tokenizer.eos_ids:
            break
        output.append(token)
        tokens = [token]
    return tuple(output)


@pytest.fixture
def own_answer() -> Callable[..., tuple[int, ...]]:
    """What a model says to PROMPT when nothing is between it and the test."""

    def answer(params: SamplingParams | None = None, *, count: int = 512, **model: object) -> tuple[int, ...]:
        return alone([{"role": "user", "content": PROMPT}], count, params, **model)

    return answer
