"""Prompts that begin like past ones get the same answers on real engines, with what is kept and without."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cloud_service.scheduler.jobs import Emitted, Ended, Event, Job, Ticket
from cloud_service.scheduler.policy import PassBudget
from cloud_service.scheduler.runner import Runner
from model_runtime.core import Engine
from model_runtime.sampling import SamplingParams

PATIENCE = 60
SYSTEM = tuple(range(65, 105))
#: In f32 and without flash attention, llama.cpp's numbers hardly depend on how a prompt is cut.
PRECISE = {"kv_precision": "f32", "flash_attention": False}


def load(name: str, folder: Path) -> Engine:
    if name == "llama":
        from model_runtime.llama.engine import LlamaEngine

        # Fewer cells than the conversation below needs in all: what is kept has to make room.
        return LlamaEngine.load(folder / "model.gguf", max_sequences=4, kv_tokens=320, threads=1, **PRECISE)
    from model_runtime.onnx.engine import OnnxEngine

    return OnnxEngine.load(folder / f"{name}.onnx", max_sequences=4, threads=1)


@pytest.fixture(params=["model", "model.fixed", "llama"])
def start(request, tiny_model) -> Iterator[Callable[[bool], Runner]]:
    """`start(keeps)`: a runner over a new engine."""
    runners: list[Runner] = []

    def make(keeps: bool) -> Runner:
        runner = Runner(
            load(request.param, tiny_model("llama")),
            budget=PassBudget(64),
            places=2,
            queue_depth=4,
            keeps_prefixes=keeps,
            post=lambda call: call(),
            observe=lambda seconds, prefill, decode: None,
            failed=lambda cause: None,
        )
        runners.append(runner)
        return runner

    yield make
    for runner in runners:
        runner.close(PATIENCE)


def answer(runner: Runner, prompt: tuple[int, ...]) -> tuple[tuple[int, ...], int, int]:
    """Ids, tokens said to be cached when it was accepted, and when it ended."""
    events: queue.Queue[Event] = queue.Queue()
    ticket = runner.submit(Job("job", prompt, (), 12, SamplingParams(temperature=1.0, seed=len(prompt))), events.put)
    assert isinstance(ticket, Ticket)
    ids: tuple[int, ...] = ()
    while isinstance(event := events.get(timeout=PATIENCE), Emitted):
        ids += event.ids
    assert isinstance(event, Ended)
    return ids, ticket.cached_tokens, event.usage.cached_tokens


def test_the_same_tokens_with_and_without(start):
    keeping, forgetting = start(True), start(False)
    turn = (*SYSTEM, 200, 201, 202)
    said, accepted, cached = answer(keeping, turn)
    assert (accepted, cached) == (0, 0)
    assert answer(forgetting, turn) == (said, 0, 0)
    # Another question after the same system text, the first conversation's next turn, and the first question again.
    for prompt, known in (
        ((*SYSTEM, 210, 211), len(SYSTEM)),
        ((*turn, *said, 220, 221, 222), len(turn) + len(said) - 1),
        (turn, len(turn) - 1),
        ((*SYSTEM, *range(230, 250)), len(SYSTEM)),
    ):
        said, accepted, cached = answer(keeping, prompt)
        assert accepted == cached == known
        assert answer(forgetting, prompt) == (said, 0, 0)
    assert keeping.occupancy().kept_tokens > 0
    assert forgetting.occupancy().kept_tokens == 0


def test_what_is_kept_never_stands_in_the_way(start):
    runner = start(True)
    for first in range(8):
        said, _, _ = answer(runner, tuple(range(first * 20, first * 20 + 90)))
        assert len(said) <= 12
    occupancy = runner.occupancy()
    assert occupancy.kept_sequences <= 4
    assert occupancy.kv_share == 0
