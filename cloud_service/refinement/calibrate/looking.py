"""Where every head of a model looks, on one prompt."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cloud_service.refinement.answer_attention import ROWS as ANSWER_ROWS
from cloud_service.refinement.attention import asking_rows, regard, without_sinks
from cloud_service.refinement.calibrate.probes import Probe
from cloud_service.refinement.contract import Prompt, Span
from cloud_service.refinement.units import layout, units, whole_characters
from model_runtime.core import AttentionTap, Chunk, Engine, FloatArray, Logits, Result
from model_runtime.prompt_map import prompt_map

_PASS = 512
#: Layers tapped at once: all of them, over a long prompt, may take gigabytes.
_LAYERS = 4


@dataclass(frozen=True)
class Look:
    """What one probe showed."""

    prompt: Prompt
    #: (layers, heads, prompt tokens): of each head the largest weight that an asking row gives each token.
    weights: FloatArray
    #: The same of the answer's first rows.
    answer: FloatArray
    #: (layers, heads): how much of the question's attention each head gives the text (`attention.regard`).
    regards: FloatArray
    units: tuple[Span, ...]
    #: (units,): whether the answer rests on it.
    evidence: np.typing.NDArray[np.bool_]


def look(engine: Engine, probe: Probe, rows: int) -> Look | None:
    """None for a probe that does not fit the context or that the chat template changes."""
    tokens = tuple(engine.tokenizer.render_chat(probe.messages))
    pieces = tuple(map(engine.tokenizer.token_bytes, tokens))
    where = prompt_map(probe.messages, pieces)
    if where is None or len(tokens) > engine.info.context_length:
        return None
    body = where.tokens_of([(0, len(probe.text))])
    template = [(0, body[0][0]), (body[-1][1], len(tokens))]
    prompt = Prompt(tokens, pieces, tuple(span for span in template if span[0] < span[1]))
    laid = layout(pieces)
    found = units(prompt, whole_characters(laid, prompt.protected), laid)
    evidence = where.tokens_of(probe.evidence)
    rests = [any(start < last and first < end for first, last in evidence) for start, end in found]
    return Look(prompt, *_look(engine, prompt, rows), found, np.array(rests, bool))


def _look(engine: Engine, prompt: Prompt, rows: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Weights, the answer's weights, and regards. The last rows are fed once for each group of layers, all before them
    once."""
    tokens, layers = prompt.tokens, engine.info.layers
    first = max(0, len(tokens) - rows)
    asking = asking_rows(prompt.pieces, len(tokens) - first)
    sequence = engine.open()
    weights, regards = [], []
    try:
        for start in range(0, first, _PASS):
            engine.forward([Chunk(sequence, tokens[start : min(first, start + _PASS)], Logits.NONE)])
        for layer in range(0, layers, _LAYERS):
            engine.truncate(sequence, first)
            tap = AttentionTap(tuple(range(layer, min(layers, layer + _LAYERS))), rows)
            result = engine.forward([Chunk(sequence, tokens[first:], Logits.LAST, tap)])[0]
            if result.attention is None:
                raise RuntimeError(f"{engine.info.engine} returned no attention for {tap}")
            weights.append(result.attention[:, :, asking].max(axis=2))
            regards.append(regard(prompt, result.attention))
        answer = _answer(engine, sequence, result)
    finally:
        engine.close(sequence)
    answer = without_sinks(prompt, answer[..., : len(tokens)])
    return without_sinks(prompt, np.concatenate(weights)), answer, np.concatenate(regards)


def _answer(engine: Engine, sequence: int, result: Result) -> FloatArray:
    """Where the answer's first tokens look, by the likeliest answer; zeros where there is none."""
    info = engine.info
    tap = AttentionTap(tuple(range(info.layers)), 1)
    weights = np.zeros((info.layers, info.heads, engine.length(sequence) + ANSWER_ROWS), np.float32)
    for _ in range(min(ANSWER_ROWS, info.context_length - engine.length(sequence))):
        token = int(result.logits[-1].argmax())
        if token in engine.tokenizer.eos_ids:
            break
        result = engine.forward([Chunk(sequence, (token,), Logits.LAST, tap)])[0]
        if result.attention is not None:
            seen = result.attention[:, :, 0]
            np.maximum(weights[..., : seen.shape[-1]], seen, out=weights[..., : seen.shape[-1]])
    return weights
