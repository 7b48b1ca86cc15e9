"""Scorers that need little or nothing of an engine: to compare with, and to fall back on."""

from cloud_service.refinement.baselines.bm25 import BM25
from cloud_service.refinement.baselines.positions import HeadTail, RandomUnits
from cloud_service.refinement.baselines.self_information import SelfInformation

__all__ = ["BM25", "HeadTail", "RandomUnits", "SelfInformation"]
