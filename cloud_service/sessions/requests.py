"""A `generate` from the wire as a job for the scheduler, or the reason why it cannot be one. Pure."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Literal

from cloud_service.desk import Bounds
from cloud_service.refinement.contract import NO_NEEDS, Needs, Prompt, Span
from cloud_service.refinement.refinery import Wish
from cloud_service.scheduler.jobs import Job
from model_runtime.constraint import compile_constraint, constraint_from
from model_runtime.core import Message, Tokenizer
from model_runtime.errors import BadInputError
from model_runtime.prompt_map import prompt_map
from model_runtime.sampling import SamplingParams
from wire_protocol.messages import Error, Generate, Rejected, Sampling
from wire_protocol.trace_context import usable

NO_CONSTRAINTS = (
    "the engine that answers here cannot be held to a JSON schema, regex or grammar: see `welcome.offers`; "
    "where it runs in this service, install 'pd-device[structured]' beside it"
)


@dataclass(frozen=True, slots=True)
class Defaults:
    """What a `generate` does not say. Seconds."""

    linger: float
    #: From arrival; None for no deadline.
    deadline: float | None


@dataclass(frozen=True, slots=True)
class Extent:
    """A prompt in the unit that `refine` counts in."""

    unit: Literal["tokens", "characters"]
    length: int

    @property
    def whole(self) -> tuple[Span, ...]:
        return ((0, self.length),) if self.length else ()


def job_from(
    message: Generate,
    travel: Literal["ids", "text"],
    tokenizer: Tokenizer,
    bounds: Bounds,
    defaults: Defaults,
    *,
    name: str,
    now: float,
    needs: Needs = NO_NEEDS,
    holds_constraints: bool = True,
) -> Job | Rejected | Error:
    """`needs`: what a refinement takes, where the message asks for one. Renders and tokenizes where text travels, and
    compiles a constraint, which may take some milliseconds; safe on any thread."""
    if message.constraint is not None and not holds_constraints:
        return Rejected(message.id, "unsupported", NO_CONSTRAINTS)
    try:
        prompt, output = _tokens(message, travel, tokenizer)
        sampling = _sampling(message.sampling)
        if message.constraint is not None:
            asked = constraint_from(message.constraint.kind, message.constraint.text)
            compile_constraint(asked, tokenizer).start().follow(output)
    except BadInputError as error:
        return Error(message.id, "bad_request", str(error)[:2_000])
    length = len(prompt) + len(output)
    objection = bounds.objection(length, message.grant) or bounds.unplanned(length, message.grant)
    if objection is not None:
        return Rejected(message.id, "too_long", objection)
    wait = defaults.deadline if message.deadline_ms is None else message.deadline_ms / 1000
    return Job(
        name=name,
        prompt=prompt,
        output=output,
        grant=message.grant,
        sampling=sampling,
        stop=message.stop,
        constraint=message.constraint,
        wants_text=travel == "text",
        linger=defaults.linger,
        deadline=None if wait is None else now + wait,
        needs=NO_NEEDS if message.refine is None else needs,
        traceparent=usable(message.traceparent),
    )


def extent_of(message: Generate) -> Extent:
    if message.prompt is not None:
        return Extent("tokens", len(message.prompt))
    return Extent("characters", sum(len(part.content) for part in message.messages or ()))


def wish_from(message: Generate, prompt: tuple[int, ...], tokenizer: Tokenizer) -> Wish | None:
    """What `message.refine`, which must be there, asks of a `prompt` in the service's tokens. None where text travels
    and the chat template has changed it so much that its parts cannot be found in the prompt. Safe on any thread."""
    if message.refine is None:
        raise ValueError(f"{message.id} asks for no refinement")
    pieces = tuple(map(tokenizer.token_bytes, prompt))
    protected = message.refine.protected
    where = None
    if message.messages is not None:
        where = prompt_map(_chat(message), pieces)
        if where is None:
            return None
        protected = where.tokens_of(protected)
    return Wish(Prompt(prompt, pieces, protected), message.refine.keep_ratio, where)


def _tokens(
    message: Generate, travel: Literal["ids", "text"], tokenizer: Tokenizer
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Prompt and answer so far. Raises BadInputError."""
    if (message.prompt is not None) != (travel == "ids"):
        expected = "`prompt`, as ids travel" if travel == "ids" else "`messages`, as text travels"
        raise BadInputError(f"expected {expected} on this connection (see `welcome.travel`)")
    if message.prompt is not None:
        highest = max(itertools.chain(message.prompt, message.output))
        if highest >= tokenizer.vocabulary_size:
            raise BadInputError(f"token id {highest} is outside the vocabulary of {tokenizer.vocabulary_size}")
        return message.prompt, message.output
    return tuple(tokenizer.render_chat(_chat(message))), tuple(tokenizer.encode(message.output_text))


def _chat(message: Generate) -> list[Message]:
    return [Message(role=part.role, content=part.content) for part in message.messages or ()]


def _sampling(wire: Sampling) -> SamplingParams:
    return SamplingParams(
        temperature=wire.temperature,
        top_k=wire.top_k,
        top_p=wire.top_p,
        min_p=wire.min_p,
        repetition_penalty=wire.repetition_penalty,
        presence_penalty=wire.presence_penalty,
        frequency_penalty=wire.frequency_penalty,
        seed=wire.seed,
    )
