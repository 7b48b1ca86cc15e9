"""Carries one generation's words to the cloud, in order, and brings the cloud's back as inputs of the generation."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from device_sdk.errors import CloudError, RejectedError
from device_sdk.generation.commands import AskCloud, ExtendCloud, StopCloud, TellProgress
from device_sdk.generation.inputs import (
    CloudFinished,
    CloudLost,
    CloudRefused,
    CloudText,
    CloudTokens,
    Input,
    LinkUp,
)
from device_sdk.link import CloudLink, Connection
from model_runtime.core import Message
from model_runtime.sampling import SamplingParams
from wire_protocol.messages import (
    ChatMessage,
    CloudMessage,
    Error,
    Extend,
    Finished,
    Generate,
    Progress,
    Rejected,
    Sampling,
    Stop,
    Tokens,
    Usage,
)

logger = logging.getLogger(__name__)

CloudCommand = AskCloud | ExtendCloud | StopCloud | TellProgress

#: Seconds that the last words of an ended generation may take to leave.
FLUSH_TIMEOUT = 1.0


@dataclass(frozen=True, slots=True)
class Question:
    """What a `generate` needs beside its grant. `prompt` is in the device's token ids, None without a tokenizer."""

    id: str
    prompt: tuple[int, ...] | None
    messages: Sequence[Message]
    sampling: SamplingParams
    stop: tuple[str, ...]
    vocabulary_size: int


class Courier:
    """One per generation. `deliver` is called on the event loop's thread."""

    def __init__(self, link: CloudLink, question: Question, deliver: Callable[[Input], None]) -> None:
        self._link = link
        self._question = question
        self._deliver = deliver
        self._words: asyncio.Queue[CloudCommand | None] = asyncio.Queue()
        self._attempt: _Attempt | None = None
        self._task = asyncio.create_task(self._carry(), name=f"pd-device-courier-{question.id}")

    def say(self, command: CloudCommand) -> None:
        self._words.put_nowait(command)

    async def close(self) -> None:
        """Let what was said leave, for a moment, and end."""
        self._words.put_nowait(None)
        try:
            async with asyncio.timeout(FLUSH_TIMEOUT):
                await self._task
        except TimeoutError:
            logger.debug("the last words of generation %s did not leave in time", self._question.id)
        if self._attempt is not None:
            self._attempt.end()

    async def _carry(self) -> None:
        while (command := await self._words.get()) is not None:
            try:
                if isinstance(command, AskCloud):
                    await self._ask(command)
                elif self._attempt is not None and self._attempt.number == command.attempt:
                    await self._attempt.say(command)
            except CloudError as error:
                self._deliver(_loss(command.attempt, error))

    async def _ask(self, command: AskCloud) -> None:
        if self._attempt is not None:
            self._attempt.end()
        connection = await self._link.connection()
        self._deliver(LinkUp(connection.round_trip))
        if any(isinstance(word, StopCloud) and word.attempt == command.attempt for word in self._pending()):
            return  # Stopped while dialling: there is nothing to ask any more.
        self._attempt = _Attempt(connection, self._question, command, self._deliver)
        await self._attempt.open()

    def _pending(self) -> tuple[CloudCommand | None, ...]:
        return tuple(self._words._queue)  # type: ignore[attr-defined]


class _Attempt:
    """One `generate` on one connection: the sink of its messages."""

    def __init__(
        self, connection: Connection, question: Question, command: AskCloud, deliver: Callable[[Input], None]
    ) -> None:
        self.number = command.attempt
        self._connection = connection
        self._question = question
        self._command = command
        self._deliver = deliver
        self._id = f"{question.id}.{command.attempt}"
        self._cap = connection.welcome.limits.max_grant
        ids = connection.welcome.travel == "ids" and question.prompt is not None and command.output is not None
        self._output = command.output if ids else None

    async def open(self) -> None:
        self._connection.attach(self._id, self)
        question = self._question
        ids = self._output is not None
        await self._connection.send(
            Generate(
                id=self._id,
                grant=min(self._command.grant, self._cap),
                prompt=question.prompt if ids else None,
                messages=None if ids else tuple(ChatMessage(**message) for message in question.messages),  # type: ignore[arg-type]
                sampling=_sampling(question.sampling),
                output=self._output or (),
                output_text="" if ids else self._command.text,
                stop=question.stop,
            )
        )

    async def say(self, command: ExtendCloud | StopCloud | TellProgress) -> None:
        match command:
            case ExtendCloud(grant=grant):
                await self._connection.send(Extend(self._id, min(grant, self._cap)))
            case StopCloud(reason=reason):
                await self._connection.send(Stop(self._id, reason))
            case TellProgress(received=received, shown=shown, pace=pace, ready_in=ready_in):
                ready_ms = None if ready_in is None else 1000 * ready_in
                await self._connection.send(Progress(self._id, received, shown, 1000 * pace, ready_ms))

    def end(self) -> None:
        self._connection.detach(self._id)

    # --- Sink ----------------------------------------------------------------------------------------------------

    def receive(self, message: CloudMessage) -> None:
        match message:
            case Tokens():
                self._deliver(self._tokens(message))
            case Finished(reason=reason, usage=usage):
                self.end()
                self._deliver(CloudFinished(self.number, reason, _busy_ms(usage)))
            case Rejected(reason=reason, message=text, retry_after_ms=wait):
                self.end()
                retry_after = None if wait is None else wait / 1000
                error = RejectedError(text or reason, reason=reason, retry_after=retry_after)
                self._deliver(CloudRefused(self.number, f"{reason}: {error}", retry_after))
            case Error(message=text, retriable=retriable):
                self.end()
                self._deliver(CloudLost(self.number, text, retriable))
            case _:
                pass  # `accepted` changes nothing here; refinements are not asked for

    def lost(self, error: CloudError) -> None:
        self._deliver(_loss(self.number, error))

    def _tokens(self, message: Tokens) -> Input:
        if self._output is None:
            if message.ids:
                return CloudLost(self.number, "the service sent token ids where text was agreed on", False)
            return CloudText(self.number, message.first, message.count, message.data)
        if message.data or not all(token < self._question.vocabulary_size for token in message.ids):
            return CloudLost(self.number, "the service sent text or ids that the tokenizer does not have", False)
        return CloudTokens(self.number, message.first - len(self._output), message.ids)


def _loss(attempt: int, error: CloudError) -> CloudLost:
    return CloudLost(attempt, str(error), error.retriable)


def _busy_ms(usage: Usage) -> float:
    return usage.prefill_ms + usage.decode_ms


def _sampling(params: SamplingParams) -> Sampling:
    return Sampling(
        temperature=params.temperature,
        top_k=params.top_k,
        top_p=params.top_p,
        min_p=params.min_p,
        repetition_penalty=params.repetition_penalty,
        presence_penalty=params.presence_penalty,
        frequency_penalty=params.frequency_penalty,
        seed=params.seed,
    )
