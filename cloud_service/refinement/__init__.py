"""Which parts of a prompt matter for its answer."""

from cloud_service.refinement.contract import Evidence, Needs, Prompt, Scorer, Span
from cloud_service.refinement.guard import Guard
from cloud_service.refinement.refinery import Refined, Refinery, Wish
from cloud_service.refinement.selection import select

__all__ = ["Evidence", "Guard", "Needs", "Prompt", "Refined", "Refinery", "Scorer", "Span", "Wish", "select"]
