"""The refinery that the settings ask for."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, TypeAlias

from cloud_service.refinement import calibration
from cloud_service.refinement.answer_attention import AnswerAttention
from cloud_service.refinement.attention import AttentionScorer, default_layers
from cloud_service.refinement.baselines import BM25, HeadTail, RandomUnits, SelfInformation
from cloud_service.refinement.calibration import Calibration, CalibrationError
from cloud_service.refinement.contract import Scorer
from cloud_service.refinement.floors import NO_FLOORS
from cloud_service.refinement.guard import Guard
from cloud_service.refinement.refinery import Refinery
from cloud_service.refinement.scorer_model import ScorerModel
from model_runtime.core import Engine, EngineInfo

logger = logging.getLogger(__name__)

#: `auto` is `attention` where the engine shows any, with the second stage of `answer-attention` where a calibration has
#: found that it helps; else `off`.
Choice: TypeAlias = Literal[
    "auto", "attention", "answer-attention", "model", "bm25", "self-information", "head-tail", "random", "off"
]

#: Choices that look at the serving engine's attention.
ATTENTIVE = frozenset({"auto", "attention", "answer-attention"})

_BASELINES: dict[str, Callable[[], Scorer]] = {
    "bm25": BM25,
    "self-information": SelfInformation,
    "head-tail": HeadTail,
    "random": RandomUnits,
}


class RefinementError(Exception):
    """What was chosen cannot be had: the message says why and what to do."""


def build_refinery(
    choice: Choice,
    model: str,
    info: EngineInfo,
    *,
    calibrated: Path | None = None,
    scorer_model: str | None = None,
    load_scorer: Callable[[str], Engine] | None = None,
) -> Refinery:
    """`model` is what `info` was loaded from. `calibrated` is its calibration, or that of the scorer model; by default
    the file beside the model. `load_scorer` loads `scorer_model`, for the choice `model`.

    Raises RefinementError, CalibrationError for a file that cannot be used, and what `load_scorer` raises.
    """
    if choice in _BASELINES:
        # Scores that do not come from attention say nothing about whether a question needs the whole prompt.
        return Refinery([_BASELINES[choice]()])
    if choice == "model":
        if scorer_model is None or load_scorer is None:
            raise RefinementError("refine = 'model' needs a scorer model: set refine_model")
        engine = load_scorer(scorer_model)
        if not engine.info.capabilities.attention_tap:
            engine.shutdown()
            raise RefinementError(f"{scorer_model} shows no attention and cannot score: choose another refine_model")
        found = _calibration(scorer_model, engine.info, calibrated)
        scorer = ScorerModel(engine, _attention(engine.info, found))
        return _refinery([scorer], found, release=scorer.close)
    if choice == "off":
        return Refinery()
    if not info.capabilities.attention_tap:
        why = f"{info.engine} shows no attention of this model"
        if choice != "auto":
            raise RefinementError(f"{why}: set refine to 'model', 'bm25' or 'off'")
        return Refinery(why_not=why)
    found = _calibration(model, info, calibrated)
    first = _attention(info, found)
    stages: list[Scorer] = [first]
    answering = found.answer_heads if found else ()
    if choice == "answer-attention" or (choice == "auto" and answering):
        stages.append(AnswerAttention(first.needs.layers, heads=answering or None))
    return _refinery(stages, found)


def _refinery(
    stages: Sequence[Scorer], found: Calibration | None, *, release: Callable[[], None] | None = None
) -> Refinery:
    if found is None:
        return Refinery(stages, Guard(), release=release)
    return Refinery(stages, Guard(found.boundary), floors=found.floors or NO_FLOORS, release=release)


def _attention(info: EngineInfo, found: Calibration | None) -> AttentionScorer:
    if found is None:
        return AttentionScorer(default_layers(info.layers))
    return AttentionScorer(found.layers, heads=found.heads, rows=found.rows)


def _calibration(model: str, info: EngineInfo, path: Path | None) -> Calibration | None:
    """What was asked for must fit; what merely lies beside a model need not."""
    asked, path = path is not None, path or calibration.beside(model)
    if path is None or not (asked or path.exists()):
        return None
    found = calibration.load(path, info.model_fingerprint, layers=info.layers, heads=info.heads)
    if found is None and asked:
        raise CalibrationError(f"{path} is of other models than {info.model}: run pd-cloud calibrate for it")
    if found is None:
        logger.warning("the calibration is of another model", extra={"file": str(path), "model": info.model})
    return found
