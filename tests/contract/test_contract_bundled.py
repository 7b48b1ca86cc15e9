"""The bundled `device` model: the same in every engine, and what PyTorch recorded of it."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import numpy as np
import pytest

from demos.training.logbook import make_document, make_questions, user_message
from model_runtime.core import AttentionTap, Chunk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from model_runtime.core import Engine

ROOT = Path(__file__).parents[2]
DEVICE = ROOT / "demos" / "models" / "device"
REFERENCE = ROOT / "tests" / "demos" / "training" / "reference" / "device.npz"


@pytest.fixture(scope="module", params=["onnx", "onnx-fixed", "llama.cpp", "emulated"])
def engine(request: pytest.FixtureRequest, load_engine: Callable[[str, Path], Engine]) -> Iterator[Engine]:
    with load_engine(request.param, DEVICE) as engine:
        yield engine


@pytest.fixture(scope="module")
def answers(load_engine: Callable[[str, Path], Engine]) -> dict[str, list[int]]:
    """What one engine answers to a question of each kind."""
    with load_engine("onnx", DEVICE) as engine:
        return {kind: greedy(engine, prompt(engine, kind)) for kind in ("lookup", "report")}


def prompt(engine: Engine, kind: str) -> list[int]:
    rng = Random(23)
    document = make_document(rng, 400, "eval")
    [question] = make_questions(rng, document, 1, {kind: 1.0})
    return engine.tokenizer.render_chat([{"role": "user", "content": user_message(document, question.text)}])


def greedy(engine: Engine, tokens: list[int]) -> list[int]:
    sequence = engine.open()
    [result] = engine.forward([Chunk(sequence, tokens)])
    said = [int(result.logits[0].argmax())]
    while said[-1] not in engine.tokenizer.eos_ids and len(said) < 40:
        [result] = engine.forward([Chunk(sequence, said[-1:])])
        said.append(int(result.logits[0].argmax()))
    engine.close(sequence)
    return said


@pytest.mark.parametrize("kind", ["lookup", "report"])
def test_greedy_answers_are_the_same_in_every_engine(engine: Engine, answers: dict[str, list[int]], kind: str) -> None:
    assert greedy(engine, prompt(engine, kind)) == answers[kind]


def test_logits_and_attention_are_what_pytorch_recorded(engine: Engine) -> None:
    reference = np.load(REFERENCE)
    layers, rows = tuple(reference["layers"].tolist()), reference["attention"].shape[2]
    sequence = engine.open()
    tokens = reference["ids"].tolist()
    engine.forward([Chunk(sequence, tokens[:100])])
    [result] = engine.forward([Chunk(sequence, tokens[100:], tap=AttentionTap(layers, rows))])
    engine.close(sequence)
    assert result.attention is not None
    outdated = f"if {DEVICE} was exported anew, record it: python -m demos.training.reference {DEVICE} {REFERENCE}"
    np.testing.assert_allclose(result.attention, reference["attention"], atol=1e-2, err_msg=outdated)
    np.testing.assert_allclose(result.logits[0], reference["logits"], atol=0.1, err_msg=outdated)
    assert result.logits[0].argmax() == reference["logits"].argmax()
