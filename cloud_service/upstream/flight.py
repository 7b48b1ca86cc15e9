"""One generation on servers elsewhere: asked for, forwarded on rejection, gone on with after a failure, ended once."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from dataclasses import dataclass
from typing import Any, Literal

from cloud_service.scheduler.jobs import Ended, Event, Failed, Job, Late, Listener, Refusal, Refused
from cloud_service.upstream.dialects import NotOfferedError
from cloud_service.upstream.offer import Offer
from cloud_service.upstream.output import IdOutput, TextOutput
from cloud_service.upstream.pool import CHECK_EVERY, Pool
from cloud_service.upstream.prompts import PromptText
from cloud_service.upstream.server import BadRequestError, BrokenError, BusyError, Server
from cloud_service.upstream.stream import Piece
from model_runtime.errors import BadInputError
from wire_protocol.messages import Usage

logger = logging.getLogger(__name__)


class _NobodyError(Exception):
    """No server did it."""

    def __init__(self, message: str, retry_after_s: float | None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


@dataclass(slots=True)
class _Times:
    """On the monotonic clock, in seconds. Through an upstream only wall time is known, waiting there included."""

    arrived: float
    first: float | None = None

    def usage(self, job: Job, given: int, cached: int) -> Usage:
        now = time.monotonic()
        first = now if self.first is None else self.first
        return Usage(
            prompt_tokens=len(job.whole_prompt),
            cached_tokens=min(cached, len(job.prompt)),
            output_tokens=given,
            prefill_ms=(first - self.arrived) * 1000,
            decode_ms=(now - first) * 1000,
        )


class Flight:
    """Belongs to one event loop. Its listener gets exactly one terminal event, unless it is abandoned."""

    def __init__(self, job: Job, listener: Listener, pool: Pool, prompts: PromptText, *, as_ids: bool) -> None:
        self.phase: Literal["waiting", "running", "lingering"] = "waiting"
        self._job = job
        self._listener = listener
        self._pool = pool
        self._prompts = prompts
        self._output: IdOutput | TextOutput = IdOutput(job, prompts.tokenizer) if as_ids else TextOutput(job)
        self._grant = job.grant
        #: Tokens of the grant that are used up; more than were given where a server counts differently.
        self._used = 0
        self._cached = 0
        self._times = _Times(time.monotonic())
        self._extended = asyncio.Event()
        self._draining = False
        #: What a cancelled flight tells its listener.
        self._farewell: Event | Literal["stopped"] | None = None
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> asyncio.Task[None]:
        self._task = asyncio.create_task(self._fly())
        return self._task

    def extend(self, grant: int) -> None:
        self._grant = max(self._grant, grant)
        self._extended.set()

    def drain(self) -> None:
        """Hold no grant open any more."""
        self._draining = True
        self._extended.set()

    def leave(self, farewell: Event | Literal["stopped"] | None) -> None:
        """End now; `None` tells nobody."""
        self._farewell = farewell
        if self._task is not None:
            self._task.cancel()

    async def _fly(self) -> None:
        try:
            event: Event = await self._produce()
        except asyncio.CancelledError:
            self.say_farewell()
            return
        except (BadInputError, BadRequestError, NotOfferedError) as error:
            event = Failed("bad_request", str(error), retriable=False)
        except TimeoutError:
            event = Late()
        except _NobodyError as error:
            if self._output.given:
                event = Failed("engine", str(error), retriable=True)
            else:
                wait = None if error.retry_after_s is None else error.retry_after_s * 1000
                event = Refused(Refusal("busy", str(error), wait))
        except Exception:
            logger.exception("a generation on an upstream failed", extra={"generation": self._job.name})
            event = Failed("internal", "the service failed", retriable=True)
        self._listener(event)

    def say_farewell(self) -> None:
        """It was told to leave."""
        event = self._ended("stopped") if self._farewell == "stopped" else self._farewell
        if event is not None:
            self._listener(event)

    async def _produce(self) -> Ended:
        """Raises as `_fly` catches."""
        while self._output.over is None:
            left = self._grant - self._used
            if left <= 0:
                if not await self._extended_in_time():
                    return self._end("grant")
                continue
            finish = await self._ask_around(left)
            if self._output.over is not None:
                break
            if finish != "length":
                return self._end("eos")
            if isinstance(self._output, TextOutput):
                self._used += left
            elif self._output.given < self._used + left:
                # It stopped before it was due to, and not at the answer's end: there is no room.
                return self._end("context")
            else:
                self._used = self._output.given
        return self._end(self._output.over)

    async def _ask_around(self, tokens: int) -> str:
        """One server after another, until one has ended the request; a later one goes on where an earlier one failed.
        Returns how it ended. Raises _NobodyError, BadRequestError, TimeoutError."""
        tried: list[Server] = []
        waits: list[float] = []
        end = self._output.given + tokens
        why = "no upstream is up"
        while (choice := self._pool.choose(tried)) is not None:
            server, offer = choice
            tried.append(server)
            try:
                return await self._ask(server, offer, end - self._output.given)
            except BusyError as error:
                why = str(error)
                waits.append(CHECK_EVERY if error.retry_after_s is None else error.retry_after_s)
            except BrokenError as error:
                why = str(error)
                logger.warning("%s", error, extra={"generation": self._job.name})
        if not waits:
            waits.append(CHECK_EVERY)
        raise _NobodyError(f"no upstream took it: {why}", min(waits))

    async def _ask(self, server: Server, offer: Offer, tokens: int) -> str:
        body = self._body(offer, tokens)
        headers = {"traceparent": self._job.traceparent} if self._job.traceparent else {}
        deadline = self._job.deadline if self._times.first is None else None
        server.in_flight += 1
        finish = ""
        room = self._output.given + tokens
        try:
            stream = contextlib.aclosing(server.stream(body, headers))
            async with stream as pieces, asyncio.timeout_at(deadline) as limit:
                async for piece in pieces:
                    if piece.ids or piece.text:  # only the first token has a deadline
                        limit.reschedule(None)
                    self._take(piece, room - self._output.given)
                    finish = piece.finish or finish
                    if self._output.over is not None:
                        break
        finally:
            server.in_flight -= 1
        return finish

    def _take(self, piece: Piece, room: int) -> None:
        self._cached = max(self._cached, piece.cached_tokens)
        for emitted in self._output.push(piece, room):
            if self._times.first is None:
                self._times.first = time.monotonic()
            self.phase = "running"
            self._listener(emitted)

    def _body(self, offer: Offer, tokens: int) -> dict[str, Any]:
        """Raises NotOfferedError, BadInputError."""
        job, output = self._job, self._output
        known = [*job.prompt, *job.output, *(output.ids if isinstance(output, IdOutput) else ())]
        prompt: list[int] | str = known
        if not offer.ids_in:
            prompt = self._prompts.write(known, adds_bos=offer.adds_bos)
        if isinstance(output, TextOutput):
            if isinstance(prompt, list):
                prompt = [*prompt, *self._prompts.tokenizer.encode(output.text)]
            else:
                prompt += output.text
        # Noise is drawn anew with each request: the same seed again would repeat what it drew for the first token.
        seed = job.sampling.seed + len(job.output) + output.given
        body: dict[str, Any] = {"model": offer.model, "prompt": prompt, "max_tokens": tokens}
        body |= offer.dialect.sampling(job.sampling, seed)
        if offer.ids_out:
            body["return_token_ids"] = True
        if offer.usage:
            body["stream_options"] = {"include_usage": True}
        if offer.priority:
            body["priority"] = self._priority()
        return body

    def _priority(self) -> int:
        """When it is due, in ms of the wall clock, so that several gateways agree: what is due first goes first."""
        due = self._times.arrived if self._job.deadline is None else self._job.deadline
        return int((time.time() + due - time.monotonic()) * 1000) % 2**31

    async def _extended_in_time(self) -> bool:
        """Whether the grant was raised before the used-up one has been held open long enough."""
        self.phase = "lingering"
        self._extended.clear()
        if self._grant <= self._used and not self._draining:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._job.linger):
                    await self._extended.wait()
        self.phase = "running"
        return self._grant > self._used

    def _end(self, reason: Literal["grant", "eos", "stop", "context"]) -> Ended:
        rest = self._output.end()
        if rest is not None:
            self._listener(rest)
        return self._ended(reason)

    def _ended(self, reason: Literal["grant", "eos", "stop", "stopped", "context"]) -> Ended:
        return Ended(reason, self._times.usage(self._job, self._output.given, self._cached))
