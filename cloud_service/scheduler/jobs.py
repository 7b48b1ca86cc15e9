"""What goes into the scheduler and what comes out of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import msgspec

from cloud_service.refinement.contract import NO_NEEDS, Evidence, Needs
from model_runtime.sampling import SamplingParams
from wire_protocol.messages import Constraint, Usage


@dataclass(frozen=True, slots=True)
class Job:
    """One generation to be done. Plain data: it may travel to another process (`cloud_service.pool`)."""

    #: For logs; unique only within its client.
    name: str
    prompt: tuple[int, ...]
    #: The answer so far, where one is continued.
    output: tuple[int, ...]
    #: Output tokens to give at most, after `output`.
    grant: int
    sampling: SamplingParams
    stop: tuple[str, ...] = ()
    #: What the answer, `output` included, must look like; checked before, also against `output`.
    constraint: Constraint | None = None
    #: Whether the listener wants the bytes of the tokens, cut at a stop string; else it gets ids alone, all of them.
    wants_text: bool = False
    #: How long a used-up grant is held open for an extension, in seconds.
    linger: float = 0.0
    #: Whose past generations may have prefilled part of the prompt; those of another scope are not looked at.
    scope: str = ""
    #: When a first token is of no more use, on the runner's clock, in seconds; None for never.
    deadline: float | None = None
    #: What a scorer wants to see of the passes; its listener then gets `Seen`.
    needs: Needs = NO_NEEDS
    #: The span that this job belongs to (W3C Trace Context); empty for none.
    traceparent: str = ""
    #: What its client calls the kind of its prompts, which begin alike; empty where it does not say.
    family: str = ""
    #: The prompt as it was asked, where `prompt` is the part of it that is read: penalties and accounts are of the
    #: whole.
    asked: tuple[int, ...] | None = None
    #: Whether it goes on with what was taken on before, and is not turned away by a full queue or a drain.
    goes_on: bool = False
    #: Whether it goes on elsewhere after its first token, with the KV cache that its listener gets as `HandedOver`.
    hands_over: bool = False

    @property
    def whole_prompt(self) -> tuple[int, ...]:
        return self.prompt if self.asked is None else self.asked


@dataclass(frozen=True, slots=True)
class Carried:
    """The KV cache of a job that was begun elsewhere, of its first `tokens` tokens."""

    kv: bytes
    tokens: int


class Emitted(msgspec.Struct, frozen=True):
    """Output tokens, the first of them number `first` of this job.

    `ids` are all of them. `data` is empty unless the job wants text; then it holds the bytes of these tokens.
    """

    first: int
    ids: tuple[int, ...]
    data: bytes = b""
    #: How many tokens `data` counts for, where an engine elsewhere gives no ids.
    pieces: int = 0

    @property
    def count(self) -> int:
        return len(self.ids) or self.pieces


@dataclass(frozen=True, slots=True)
class Seen:
    """What the passes showed of the prompt: `prompt` comes before the first token is sampled, `answer` once the
    answer's first tokens went through the engine, if it gets so long."""

    stage: Literal["prompt", "answer"]
    evidence: Evidence


@dataclass(frozen=True, slots=True)
class Looked:
    """A prompt that is to be read twice has been read once: its answer waits to be told from what (`served.Served`)."""


@dataclass(frozen=True, slots=True)
class HandedOver:
    """The KV cache of a job that `hands_over`, once its first token has left. The job waits until it is told to
    leave, or to resume. Never comes where the engine cannot export KV, or nothing is left to do."""

    carried: Carried
    #: So far.
    usage: Usage


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


@dataclass(frozen=True, slots=True)
class Refusal:
    """A job was not taken on; nothing was done, and its listener is never called."""

    reason: Literal["busy", "deadline", "draining", "failed"]
    message: str
    #: When trying again may help, as far as can be told from the load now.
    retry_after_ms: float | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """Terminal: a job that was taken on found nobody to do it; nothing was made."""

    refusal: Refusal


Event: TypeAlias = Emitted | Seen | Looked | HandedOver | Ended | Late | Refused | Failed
#: Called on the event loop's thread, in order, with exactly one terminal event, which is the last.
Listener: TypeAlias = Callable[[Event], None]


@dataclass(frozen=True, slots=True)
class Ticket:
    """A job was taken on."""

    key: int
    #: How long it will probably wait for its first pass, in ms.
    queue_ms: float
    #: Tokens that will probably need no prefill.
    cached_tokens: int = 0
