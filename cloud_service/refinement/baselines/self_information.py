"""How much a sentence surprises the model (Selective Context, arXiv 2310.06201): blind to the question."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloud_service.refinement.baselines.by_unit import parts, spread
from cloud_service.refinement.contract import Needs

if TYPE_CHECKING:
    from cloud_service.refinement.contract import Evidence, Prompt
    from model_runtime.core import FloatArray


class SelfInformation:
    """The mean of -ln p over a line or sentence. Reads `Evidence.logprobs`."""

    name = "self-information"

    @property
    def needs(self) -> Needs:
        return Needs(logprobs=True)

    def score(self, prompt: Prompt, evidence: Evidence) -> FloatArray:
        """Raises ValueError where there are no log-probabilities."""
        if evidence.logprobs is None:
            raise ValueError("self-information needs the prompt's log-probabilities; the engine gave none")
        surprise = -evidence.logprobs
        _, _, found = parts(prompt)
        return spread(prompt, found, (float(surprise[start:stop].mean()) for start, stop in found))
