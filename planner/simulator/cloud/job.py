"""One generation as the cloud sees it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Sequence

    from planner.simulator.cloud.instance import Instance

#: `rejected`: nothing was generated. The others as in the protocol's `finished`.
End: TypeAlias = Literal["grant", "eos", "stopped", "rejected"]


class Listener(Protocol):
    """Who asked. Times are the cloud's, in virtual seconds: what was heard there has yet to travel."""

    def token(self, job: Job, index: int, time: float) -> None:
        """Output token `index` was made: the first one always, the others where the job is watched."""

    def ended(self, job: Job, end: End, time: float) -> None:
        """Once and last."""


@dataclass(slots=True, eq=False)
class Job:
    """`prompt` tokens to prefill; the answer ends after `length` tokens, which nobody knows beforehand."""

    listener: Listener
    prompt: int
    length: int
    grant: int
    prefix_hashes: Sequence[int] = ()
    #: The listener wants to hear each token as it is made.
    watched: bool = False
    #: Seconds that a used-up grant is held open for an extension.
    linger: float = 0.0

    arrived: float = 0.0
    #: Prompt tokens not yet in the KV cache, and those that the prefix cache spared.
    pending: int = 0
    cached: int = 0
    #: Samples made, the end-of-answer token included. Counted pass by pass while prefilling; while decoding it is
    #: known from the instance's passes, and written down when the job leaves.
    given: int = 0
    first_at: float = 0.0
    #: Number of the first pass that it decoded in on this instance, and of the one that makes its last sample.
    first_pass: int = 0
    last_pass: int = 0
    #: Engine time spent on it: each pass shared by tokens.
    prefill_seconds: float = 0.0
    decode_seconds: float = 0.0
    #: Time that it held a place for decoding.
    slot_seconds: float = 0.0
    seated_at: float = 0.0
    instance: Instance | None = None
    leaving: bool = False
    over: bool = False
    #: When each token after the first was made; filled in as the job leaves an instance.
    times: list[float] = field(default_factory=list)

    @property
    def target(self) -> int:
        """Samples until the grant or the answer is over; the end-of-answer token takes one."""
        return min(self.grant, self.length + 1)

    @property
    def delivered(self) -> int:
        """Tokens of the answer made."""
        return min(self.given, self.length)
