"""What goes into the scheduler and what comes out of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from model_runtime.sampling import SamplingParams
from wire_protocol.messages import Usage


@dataclass(frozen=True, slots=True)
class Job:
    """One generation to be done."""

    #: For logs; unique only within its client.
    name: str
    prompt: tuple[int, ...]
    #: The answer so far, where one is continued.
    output: tuple[int, ...]
    #: Output tokens to give at most, after `output`.
    grant: int
    sampling: SamplingParams
    stop: tuple[str, ...] = ()
    #: Whether the listener wants the bytes of the tokens, cut at a stop string; else it gets ids alone, all of them.
    wants_text: bool = False
    #: How long a used-up grant is held open for an extension, in seconds.
    linger: float = 0.0
    #: When a first token is of no more use, on the runner's clock, in seconds; None for never.
    deadline: float | None = None


@dataclass(frozen=True, slots=True)
class Emitted:
    """Output tokens, the first of them number `first` of this job.

    `ids` are all of them. `data` is empty unless the job wants text; then it holds the bytes of these tokens.
    """

    first: int
    ids: tuple[int, ...]
    data: bytes = b""


@dataclass(frozen=True, slots=True)
class Ended:
    """Terminal: the job came to an end of its own, or was stopped."""

    reason: Literal["grant", "eos", "stop", "stopped", "context"]
    usage: Usage


@dataclass(frozen=True, slots=True)
class Late:
    """Terminal: the first token would have come after the deadline, so none was made."""


@dataclass(frozen=True, slots=True)
class Failed:
    """Terminal: the service's fault, or (`bad_request`) a request that only then showed to be impossible."""

    code: Literal["bad_request", "engine", "internal"]
    message: str
    retriable: bool


Event: TypeAlias = Emitted | Ended | Late | Failed
#: Called on the event loop's thread, in order, with exactly one terminal event, which is the last.
Listener: TypeAlias = Callable[[Event], None]


@dataclass(frozen=True, slots=True)
class Ticket:
    """A job was taken on."""

    key: int
    #: How long it will probably wait for its first pass, in ms.
    queue_ms: float


@dataclass(frozen=True, slots=True)
class Refusal:
    """A job was not taken on; nothing was done, and its listener is never called."""

    reason: Literal["busy", "deadline", "draining", "failed"]
    message: str
    #: When trying again may help, as far as can be told from the load now.
    retry_after_ms: float | None = None
