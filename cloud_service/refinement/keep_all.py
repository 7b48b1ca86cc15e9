"""The refiner that never does harm."""

from __future__ import annotations

from cloud_service.refinement.contract import Prompt
from wire_protocol.messages import Refine, Span


class KeepAll:
    """Keeps the whole prompt, whatever ratio was wished for."""

    def refine(self, prompt: Prompt, wish: Refine) -> tuple[Span, ...]:
        return ((0, prompt.length),) if prompt.length else ()
