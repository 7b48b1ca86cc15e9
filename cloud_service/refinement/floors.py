"""How far below the best line a line may be and still be kept. Pure.

A question about one fact and one about everything that happened to a thing both make lines stand out, the one few and
the other many; what the first leaves far below its best line only misleads the model that answers, and what the second
leaves there is still needed. The same heads that tell counting from quoting tell these two apart (`guard`).
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from cloud_service.refinement.attention import Head
from cloud_service.refinement.guard import Boundary, Figures

#: See `selection.select`.
Floor = Annotated[float, Meta(ge=0, lt=1)]


class Floors(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Of one model, as calibration found them."""

    #: For questions that rest on several lines.
    several: Floor
    #: For those that rest on one.
    single: Floor
    #: Above it are questions that rest on several lines. None: nothing tells them apart, and `several` is for all.
    boundary: Boundary | None = None

    @property
    def heads(self) -> tuple[Head, ...]:
        """Whose regard it asks for."""
        return () if self.boundary is None else self.boundary.heads

    def choose(self, figures: Figures | None) -> float:
        """`figures`: None where no line stands out."""
        if self.boundary is None or figures is None or self.boundary.flatness(figures) > 0:
            return self.several
        return self.single


#: Without a calibration: whatever fits.
NO_FLOORS = Floors(0.0, 0.0)
