"""What does the work behind the desk: the scheduler over an engine in this process, or engines elsewhere."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

from cloud_service.metrics import Occupancy
from cloud_service.refinement.refinery import Refinery
from cloud_service.scheduler.jobs import Job, Listener, Refusal, Ticket
from model_runtime.core import EngineInfo, Tokenizer


class Backend(Protocol):
    """Every method but `close` returns at once. A generation is known by its ticket's key; what comes for one that has
    ended is left alone."""

    @property
    def gives_ids(self) -> bool:
        """Whether output comes as token ids; else as text alone, and text travels to every device."""
        ...

    @property
    def holds_constraints(self) -> bool:
        """Whether an answer can be held to a JSON schema, regex or grammar."""
        ...

    def submit(self, job: Job, listener: Listener) -> Ticket | Refusal:
        """Take on a job. `listener` is called on the event loop, only after a Ticket was returned, and never on this
        call's stack."""
        ...

    def extend(self, key: int, grant: int) -> None:
        """Raise a grant; a smaller one changes nothing."""
        ...

    def progress(self, key: int, *, shown: int, pace: float, ready_in: float | None) -> None:
        """A device has shown `shown` of a generation's tokens, `pace` seconds apart, and expects to need no more of
        them in `ready_in` seconds."""
        ...

    def stop(self, key: int) -> None:
        """End a generation; its listener gets `Ended("stopped")`, unless it has ended already."""
        ...

    def abandon(self, key: int) -> None:
        """End a generation whose listener is gone: it may be called a last time, and then never again."""
        ...

    def ready(self) -> bool:
        """Whether a new generation would find somebody to do it."""
        ...

    def occupancy(self) -> Occupancy: ...

    def drain(self) -> Future[None]:
        """Take on no more jobs; the future is done when none is left."""
        ...

    def close(self, timeout: float) -> None:
        """End what is left with a retriable error and free everything, in `timeout` seconds at most. Blocks: never on
        the event loop's thread."""
        ...


@dataclass(frozen=True, slots=True)
class Opened:
    """A backend that is ready to work, and what goes with it. Whoever takes it closes the backend and the refinery."""

    backend: Backend
    info: EngineInfo
    tokenizer: Tokenizer
    refinery: Refinery
