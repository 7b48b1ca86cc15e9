"""A `generate` from the wire as a job for the scheduler, or the reason why it cannot be one. Pure."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Literal

from cloud_service.desk import Bounds
from cloud_service.refinement import Prompt
from cloud_service.scheduler.jobs import Job
from model_runtime.core import Message, Tokenizer
from model_runtime.errors import BadInputError
from model_runtime.sampling import SamplingParams
from wire_protocol.messages import Error, Generate, Rejected, Sampling


@dataclass(frozen=True, slots=True)
class Defaults:
    """What a `generate` does not say. Seconds."""

    linger: float
    #: From arrival; None for no deadline.
    deadline: float | None


def job_from(
    message: Generate,
    travel: Literal["ids", "text"],
    tokenizer: Tokenizer,
    bounds: Bounds,
    defaults: Defaults,
    *,
    name: str,
    now: float,
) -> Job | Rejected | Error:
    """Renders and tokenizes where text travels, which may take some milliseconds; safe on any thread."""
    try:
        prompt, output = _tokens(message, travel, tokenizer)
        sampling = _sampling(message.sampling)
    except BadInputError as error:
        return Error(message.id, "bad_request", str(error)[:2_000])
    objection = bounds.objection(len(prompt) + len(output), message.grant)
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
        wants_text=travel == "text",
        linger=defaults.linger,
        deadline=None if wait is None else now + wait,
    )


def prompt_extent(message: Generate) -> Prompt:
    """The prompt in the unit that `refine` counts in."""
    if message.prompt is not None:
        return Prompt("tokens", len(message.prompt))
    return Prompt("characters", sum(len(part.content) for part in message.messages or ()))


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
    chat = [Message(role=part.role, content=part.content) for part in message.messages or ()]
    return tuple(tokenizer.render_chat(chat)), tuple(tokenizer.encode(message.output_text))


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
