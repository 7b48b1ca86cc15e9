"""A prompt with a line that is asked for, and scorers and engines that do what a test says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from cloud_service.refinement import Evidence, Guard, Needs, Prompt
from cloud_service.refinement.guard import Boundary
from model_runtime.errors import UnsupportedError
from model_runtime.testing import ScriptedEngine

LINES = "".join(f" the crew was at the north gate {number}.\n" for number in range(20))
TEXT = f"{LINES} the valve is zzzzzzzz.\n{LINES}"
QUESTION = "\n what is zzzzzzzz?"
TOKENIZER = ScriptedEngine().tokenizer
BODY = tuple(TOKENIZER.encode(TEXT))
PROMPT = BODY + tuple(TOKENIZER.encode(QUESTION))
PASSES, FLAT = Guard(Boundary((0.0,) * 5, -1.0)), Guard(Boundary((0.0,) * 5, 1.0))


class Scripted:
    """A scorer that does what the test says."""

    name = "scripted"

    def __init__(self, score: Callable[[Prompt, Evidence], Any], needs: Needs) -> None:
        self.score = score
        self.needs = needs


class Shy(ScriptedEngine):
    """Shows no attention of any sequence."""

    def forward(self, chunks, cancellation=None):  # type: ignore[no-untyped-def]
        if any(chunk.tap is not None for chunk in chunks):
            raise UnsupportedError("an imported sequence")
        return super().forward(chunks, cancellation)


def first_line(prompt: Prompt, evidence: Evidence) -> np.ndarray:
    scores = np.zeros(len(prompt.tokens), np.float32)
    scores[3] = 1
    return scores


def kinds(messages: list[Any]) -> list[str]:
    return [type(message).__name__ for message in messages]
