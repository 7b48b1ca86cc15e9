"""Carries one generation's words to the cloud, in order, and brings the cloud's back as inputs of the generation."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from device_sdk.errors import CloudError, RejectedError, ServiceFailedError
from device_sdk.generation.commands import AskCloud, ExtendCloud, StopCloud, TellProgress
from device_sdk.generation.inputs import (
    CloudFinished,
    CloudLost,
    CloudRefused,
    CloudText,
    CloudTokens,
    Input,
    LinkUp,
    Refined,
    RefinementRefused,
)
from device_sdk.link import CloudLink, Connection
from device_sdk.refining import Refining
from device_sdk.report import Guard
from device_sdk.watching import CloudWatch
from model_runtime.core import Message
from model_runtime.sampling import SamplingParams
from wire_protocol.messages import (
    ChatMessage,
    CloudMessage,
    Constraint,
    Error,
    Extend,
    Finished,
    Generate,
    Progress,
    Refine,
    Refinement,
    Rejected,
    Sampling,
    Stop,
    Tokens,
    Usage,
    Welcome,
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
    refining: Refining | None = None
    #: The span that this belongs to (W3C Trace Context); empty for none.
    traceparent: str = ""
    constraint: Constraint | None = None
    #: Looks at what the cloud sends, where there is a constraint.
    watch: CloudWatch | None = None
    #: `messages` are not those that the prompt was made of, so their characters are not to be refined.
    reworded: bool = False
    #: Seconds in which a first token is still of use; None: the service's own.
    deadline: float | None = None

    def lacking(self, welcome: Welcome) -> str | None:
        """Why this service cannot be asked; None where it can."""
        if not self.messages and welcome.travel == "text":
            return f"a raw prompt travels in token ids only, and the tokenizer of {welcome.server} is another"
        if self.constraint is None or "constraint" in welcome.offers:
            return None
        return f"unsupported: {welcome.server} cannot hold an answer to a JSON schema, regex or grammar"


class Courier:
    """One per generation. `deliver` is called on the event loop's thread."""

    def __init__(self, link: CloudLink, question: Question, deliver: Callable[[Input], None]) -> None:
        self._link = link
        self._question = question
        self._deliver = deliver
        self._words: asyncio.Queue[CloudCommand | None] = asyncio.Queue()
        #: What failed so far, in order.
        self.problems: list[CloudError] = []
        #: By number. An attempt that has ended is still told how long the answer became.
        self._attempts: dict[int, _Attempt] = {}
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
        self._end_attempts()

    async def _carry(self) -> None:
        while (command := await self._words.get()) is not None:
            try:
                if isinstance(command, AskCloud):
                    await self._ask(command)
                elif (attempt := self._attempts.get(command.attempt)) is not None:
                    await attempt.say(command)
            except CloudError as error:
                self.problems.append(error)
                self._deliver(_loss(command.attempt, error))

    async def _ask(self, command: AskCloud) -> None:
        self._end_attempts()
        connection = await self._link.connection()
        self._deliver(LinkUp(connection.round_trip))
        if (lack := self._question.lacking(connection.welcome)) is not None:
            self._deliver(CloudRefused(command.attempt, lack, None))
            return
        if any(isinstance(word, StopCloud) and word.attempt == command.attempt for word in self._pending()):
            # Stopped while dialling: there is nothing to ask any more, and nobody who would say that it has ended.
            self._deliver(CloudFinished(command.attempt, "stopped", 0.0))
            return
        attempt = _Attempt(connection, self._question, command, self._deliver, self.problems)
        self._attempts[command.attempt] = attempt
        await attempt.open()

    def _end_attempts(self) -> None:
        for attempt in self._attempts.values():
            attempt.end()

    def _pending(self) -> tuple[CloudCommand | None, ...]:
        return tuple(self._words._queue)  # type: ignore[attr-defined]


class _Attempt:
    """One `generate` on one connection: the sink of its messages. What fails is added to `problems`."""

    def __init__(
        self,
        connection: Connection,
        question: Question,
        command: AskCloud,
        deliver: Callable[[Input], None],
        problems: list[CloudError],
    ) -> None:
        self.number = command.attempt
        self._connection = connection
        self._question = question
        self._command = command
        self._deliver = deliver
        self._problems = problems
        self._id = f"{question.id}.{command.attempt}"
        self._cap = connection.welcome.limits.max_grant
        ids = connection.welcome.travel == "ids" and question.prompt is not None and command.output is not None
        self._output = command.output if ids else None
        self._refining = question.refining if command.refine else None

    async def open(self) -> None:
        self._connection.attach(self._id, self)
        question = self._question
        if question.watch is not None:
            question.watch.begin(self._output, self._command.text)
        ids = self._output is not None
        await self._connection.send(
            Generate(
                id=self._id,
                grant=min(self._command.grant, self._cap),
                prompt=question.prompt if ids else None,
                messages=None if ids else tuple(map(_chat_message, question.messages)),
                sampling=_sampling(question.sampling),
                refine=self._refine(),
                output=self._output or (),
                output_text="" if ids else self._command.text,
                stop=question.stop,
                traceparent=question.traceparent,
                deadline_ms=self._deadline_ms(),
                constraint=question.constraint,
            )
        )

    def _deadline_ms(self) -> float | None:
        """Of the answer's first token only: what goes on from there is late already."""
        deadline = self._question.deadline
        return None if deadline is None or self.number > 1 or self._command.text else 1000 * deadline

    def _refine(self) -> Refine | None:
        if self._refining is None:
            return None
        wish = self._refining.wish
        ids = self._output is not None
        if self._question.reworded and not ids:
            return None
        protected = wish.protected if ids else self._refining.map.characters_of(wish.protected)
        return Refine(wish.keep_ratio, protected, wish.reread and "reread" in self._connection.welcome.offers)

    async def say(self, command: ExtendCloud | StopCloud | TellProgress) -> None:
        match command:
            case ExtendCloud(grant=grant):
                await self._connection.send(Extend(self._id, min(grant, self._cap)))
            case StopCloud(reason=reason, answer_tokens=tokens):
                before = len(self._output or ())
                await self._connection.send(Stop(self._id, reason, None if tokens is None else before + tokens))
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
            case Finished(reason="eos") if (problem := self._unfinished()) is not None:
                self.end()
                self._deliver(CloudLost(self.number, problem, False))
            case Finished(reason=reason, usage=usage):
                self.end()
                self._deliver(CloudFinished(self.number, reason, _busy_ms(usage)))
            case Rejected(reason=reason, message=text, retry_after_ms=wait):
                self.end()
                retry_after = None if wait is None else wait / 1000
                error = RejectedError(text or reason, reason=reason, retry_after=retry_after)
                self._problems.append(error)
                self._deliver(CloudRefused(self.number, f"{reason}: {error}", retry_after))
            case Error(message=text, retriable=retriable):
                self.end()
                self._problems.append(ServiceFailedError(text, retriable=retriable))
                self._deliver(CloudLost(self.number, text, retriable))
            case Refinement():
                self._deliver(self._refined(message))
            case _:
                pass  # `accepted` changes nothing here

    def lost(self, error: CloudError) -> None:
        self._problems.append(error)
        self._deliver(_loss(self.number, error))

    def _refined(self, message: Refinement) -> Input:
        """With spans of the device's own tokens, whichever way the prompt travelled."""
        expected = "characters" if self._output is None else "tokens"
        if message.unit != expected:
            problem = f"the service counts the prompt it refined in {message.unit}; expected {expected}"
            return RefinementRefused(self.number, problem)
        keep = message.keep
        if self._output is None and self._refining is not None:
            try:
                keep = self._refining.map.tokens_of(keep)
            except ValueError as error:
                return RefinementRefused(self.number, f"the service sent a refinement beyond the prompt: {error}")
        guard = Guard(message.guard, message.detail)
        return Refined(self.number, message.stage, message.final, keep, guard, message.reread)

    def _unfinished(self) -> str | None:
        return None if self._question.watch is None else self._question.watch.unfinished()

    def _tokens(self, message: Tokens) -> Input:
        fitting = self._fitting(message)
        watch = self._question.watch
        if watch is not None and not isinstance(fitting, CloudLost):
            problem = watch.objection(message)
            if problem is not None:
                return CloudLost(self.number, problem, False)
        return fitting

    def _fitting(self, message: Tokens) -> Input:
        if self._output is None:
            if message.ids:
                return CloudLost(self.number, "the service sent token ids where text was agreed on", False)
            return CloudText(self.number, message.first, message.count, message.data)
        if message.data or not all(token < self._question.vocabulary_size for token in message.ids):
            return CloudLost(self.number, "the service sent text or ids that the tokenizer does not have", False)
        return CloudTokens(self.number, message.first - len(self._output), message.ids)


def _chat_message(message: Message) -> ChatMessage:
    return ChatMessage(role=message["role"], content=message["content"])  # type: ignore[arg-type]  # the codec checks it


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
