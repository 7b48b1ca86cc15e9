"""How much of an answer's quality a refined prompt keeps, as somebody measured it."""

from __future__ import annotations

import bisect
import itertools
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from planner.errors import PlannerError

_Share = Annotated[float, Meta(gt=0, le=1)]


class QualityTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """(keep ratio, share of the full prompt's quality), by rising ratio; between points linear, below the first one
    not known. Raises ValueError."""

    source: Annotated[str, Meta(min_length=1)]
    points: Annotated[tuple[tuple[_Share, Annotated[float, Meta(ge=0)]], ...], Meta(min_length=1)]

    def __post_init__(self) -> None:
        ratios = [ratio for ratio, _ in self.points]
        if any(after <= before for before, after in itertools.pairwise(ratios)):
            raise ValueError(f"points must have rising keep ratios, not {ratios}")

    def quality(self, keep_ratio: float | None) -> float:
        """Of a prompt refined to `keep_ratio`; None is the full prompt. 0 where nothing is known."""
        if keep_ratio is None or keep_ratio >= 1:
            return 1.0
        ratios = [ratio for ratio, _ in self.points]
        after = bisect.bisect_left(ratios, keep_ratio)
        if after < len(ratios) and ratios[after] == keep_ratio:
            return self.points[after][1]
        if after == 0:
            return 0.0
        low, start = self.points[after - 1]
        high, end = self.points[after] if after < len(ratios) else (1.0, 1.0)
        return start + (end - start) * (keep_ratio - low) / (high - low)

    @classmethod
    def load(cls, path: Path) -> QualityTable:
        """From JSON. Raises PlannerError naming what is wrong."""
        try:
            return msgspec.json.decode(path.read_bytes(), type=cls)
        except OSError as error:
            raise PlannerError(f"cannot read the quality table {path}: {error.strerror}") from None
        except msgspec.DecodeError as error:
            raise PlannerError(f"the quality table {path} is not valid: {error}") from None


#: Nobody measured: only the full prompt is known to keep its quality.
FULL_PROMPT_ONLY = QualityTable(source="none: only the full prompt is used", points=((1.0, 1.0),))
