"""One device connection after its handshake: many generations at once, until either side closes."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import logging
import time
from typing import Any, Literal

from cloud_service.auth import Caller
from cloud_service.desk import Desk, Turned
from cloud_service.scheduler.jobs import Emitted, Ended, Event, Failed, Late, Looked, Refusal, Refused, Seen
from cloud_service.served import Served
from cloud_service.service import Service
from cloud_service.sessions.handshake import Agreement
from cloud_service.sessions.link import ClientGoneError, Closing, Link
from cloud_service.sessions.refining import Refining
from cloud_service.sessions.requests import Defaults, extent_of, job_from, wish_from
from cloud_service.sessions.savings import Savings
from wire_protocol.close_codes import CloseCode
from wire_protocol.errors import DecodeError, InvalidMessageError, OutOfOrderError
from wire_protocol.ledger import GenerationLedger
from wire_protocol.messages import (
    Accepted,
    CloudMessage,
    DeviceMessage,
    Draining,
    Error,
    Extend,
    Finished,
    Generate,
    Hello,
    Progress,
    Rejected,
    Stop,
    Tokens,
)

logger = logging.getLogger(__name__)


class Session:
    """Belongs to one event loop."""

    def __init__(
        self, link: Link, agreement: Agreement, service: Service, desk: Desk, caller: Caller, *, name: str
    ) -> None:
        self._link = link
        self._agreement = agreement
        self._service = service
        self._desk = desk
        self._caller = caller
        self._bounds = desk.bounds_for(caller)
        self._name = name
        settings = service.settings
        deadline_ms = settings.first_token_deadline_ms
        self._defaults = Defaults(settings.linger_ms / 1000, None if deadline_ms is None else deadline_ms / 1000)
        self._ledger = GenerationLedger()
        self._served: dict[str, Served] = {}
        #: The output index of each one's first token.
        self._begins_at: dict[str, int] = {}
        self._refining: dict[str, Refining] = {}
        self._savings = Savings()
        self._closing: asyncio.Future[Closing] = asyncio.get_running_loop().create_future()
        self._over = asyncio.Event()

    async def run(self) -> None:
        """Until the connection is closed; then everything that it had in the engine is freed."""
        reader = asyncio.create_task(self._read())
        ends: list[asyncio.Future[Any]] = [reader, self._link.writer, self._link.slow, self._closing]
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            reader.cancel()
            for served in self._served.values():
                served.abandon()
            self._served.clear()
            for refining in self._refining.values():
                refining.drop()
            if self._link.slow.done():
                text = "what was sent is not read fast enough"
                self._close(Closing(CloseCode.SLOW_READER, Error("", "slow_reader", text, retriable=True)))
            if self._closing.done():
                await self._link.close(self._closing.result())
            else:
                await self._link.discard()
            self._over.set()

    # --- what the service tells; see service.Connection -----------------------------------------------------------

    def announce_draining(self, in_ms: float) -> None:
        self._send(Draining(in_ms))

    async def go_away(self) -> None:
        self._close(Closing(CloseCode.GOING_AWAY))
        await self._over.wait()

    # --- from the device ----------------------------------------------------------------------------------------

    async def _read(self) -> None:
        try:
            while True:
                try:
                    message = await self._link.receive()
                except InvalidMessageError as error:
                    if error.generation is None or error.generation in self._served:
                        raise
                    # A `generate` that can be told apart: it ends, and the connection lives on.
                    self._link.send(Error(error.generation, "bad_message", str(error)))
                else:
                    await self._heed(message)
        except ClientGoneError:
            return
        except DecodeError as error:
            self._close(Closing(error.close_code, Error("", "bad_message", str(error))))
        except OutOfOrderError as error:
            begun = error.generation is None or error.generation in self._served
            code: Literal["bad_message", "unknown_generation"] = "bad_message" if begun else "unknown_generation"
            self._close(Closing(error.close_code, Error("", code, str(error))))
        except Exception:
            logger.exception("a connection failed", extra={"connection": self._name})
            self._close(Closing(CloseCode.INTERNAL_ERROR, Error("", "internal", "the service failed", retriable=True)))

    async def _heed(self, message: DeviceMessage) -> None:
        if self._closing.done():
            return
        heard = self._ledger.device_says(message)
        if isinstance(message, Stop) and message.answer_tokens is not None:
            self._note_given(message.id)
            self._desk.metrics.saved_tokens.inc(self._savings.claim(message.id, message.answer_tokens))
        if not heard:
            return
        match message:
            case Generate():
                await self._generate(message)
            case Extend(id=name, grant=grant) if grant > self._bounds.max_extension:
                text = f"`grant` was extended to {grant}; at most {self._bounds.max_extension} are allowed"
                self._served.pop(name).abandon()
                self._send(Error(name, "bad_request", text))
            case Extend():
                await self._served[message.id].extend(message.grant)
            case Stop():
                self._served[message.id].stop()
            case Progress(id=name, shown=shown, pace_ms=pace_ms, ready_in_ms=ready_in_ms):
                ready_in = None if ready_in_ms is None else ready_in_ms / 1000
                own_shown = shown - self._begins_at[name]
                self._served[name].progress(shown=own_shown, pace=pace_ms / 1000, ready_in=ready_in)
            case Hello():
                raise AssertionError("the ledger refuses a second hello")

    async def _generate(self, message: Generate) -> None:
        if not self._service.keys.still_valid(self._caller):
            text = "the key of this connection was revoked"
            self._close(Closing(CloseCode.UNAUTHORISED, Error("", "bad_request", text)))
            return
        name = f"{self._name}/{message.id}"
        refinery = self._desk.refinery
        rereads = message.refine is not None and message.refine.reread and message.grant > 0 and bool(refinery.stages)
        make = functools.partial(
            job_from,
            message,
            self._agreement.travel,
            self._desk.tokenizer,
            self._bounds,
            self._defaults,
            name=name,
            now=time.monotonic(),
            needs=dataclasses.replace(refinery.needs, answer_rows=0) if rereads else refinery.needs,
            holds_constraints=self._desk.backend.holds_constraints,
        )
        # Rendering a long chat or compiling a constraint takes milliseconds: other connections' tokens would wait.
        quick = message.prompt is not None and message.constraint is None
        job = make() if quick else await asyncio.to_thread(make)
        if isinstance(job, Rejected | Error):
            self._desk.reject(self._caller, name, job.reason if isinstance(job, Rejected) else job.code)
            self._send(job)
            return
        answer = await self._desk.submit(self._caller, job, functools.partial(self._hear, message), rereads=rereads)
        if isinstance(answer, Turned):
            self._send(_refusal(message.id, answer))
            return
        self._served[message.id] = answer
        self._begins_at[message.id] = len(message.output)
        tokens = len(job.prompt) + len(job.output)
        self._send(Accepted(message.id, tokens, answer.cached_tokens, answer.queue_ms))
        if message.refine is not None:
            self._refining[message.id] = Refining(
                message.id,
                refinery,
                extent_of(message),
                functools.partial(wish_from, message, job.prompt, self._desk.tokenizer),
                grant=message.grant,
                metrics=self._desk.metrics,
                send=self._send,
                reread=answer.go_on if rereads else None,
            )

    # --- to the device ------------------------------------------------------------------------------------------

    def _hear(self, request: Generate, event: Event) -> None:
        """The listener of a generation."""
        if isinstance(event, Emitted):  # by far the most
            self._give(request, event)
            return
        refining = self._refining.get(request.id)
        match event:
            case Seen() if refining is not None:
                refining.see(event)
            case Looked() if refining is not None:
                refining.looked()
            case Seen() | Looked():
                pass  # nobody waits for it any more
            case Ended(reason, usage) if refining is not None and reason != "stopped":
                refining.finish(functools.partial(self._send, Finished(request.id, reason, usage)))
            case Ended(reason, usage):
                self._send(Finished(request.id, reason, usage))
            case Late():
                self._send(Rejected(request.id, "deadline", "the first token would come after the deadline"))
            case Refused(refusal):
                self._send(_refusal(request.id, refusal))
            case Failed(code, text, retriable):
                self._send(Error(request.id, code, text[:2_000], retriable))

    def _give(self, request: Generate, emitted: Emitted) -> None:
        if self._closing.done():
            return
        if self._agreement.travel == "ids":
            tokens = Tokens(request.id, len(request.output) + emitted.first, ids=emitted.ids)
        else:
            tokens = Tokens(request.id, emitted.first, count=emitted.count, data=emitted.data)
        self._ledger.cloud_says(tokens)
        self._link.send(tokens)

    def _note_given(self, name: str) -> None:
        """For what a device may say later that it was spared."""
        served = self._served.get(name)
        if served is not None and served.given:
            self._savings.gave(name, self._begins_at[name] + served.given)

    def _send(self, message: CloudMessage) -> None:
        if self._closing.done():
            return
        self._ledger.cloud_says(message)
        if isinstance(message, (Finished, Rejected, Error)):
            self._note_given(message.id)
            self._served.pop(message.id, None)
            self._begins_at.pop(message.id, None)
            if (refining := self._refining.pop(message.id, None)) is not None:
                refining.drop()
        self._link.send(message)

    def _close(self, closing: Closing) -> None:
        if not self._closing.done():
            self._closing.set_result(closing)


def _refusal(generation: str, turned: Turned | Refusal) -> Rejected | Error:
    if turned.reason == "failed":
        return Error(generation, "engine", turned.message[:2_000], retriable=True)
    return Rejected(generation, turned.reason, turned.message, turned.retry_after_ms)
