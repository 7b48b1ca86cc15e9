"""A conversation: turns, one after the other, whose KV cache stays on the device."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self, Unpack

from device_sdk.client import DEFAULT_MAX_TOKENS, HybridClient
from device_sdk.conversation import saved
from device_sdk.conversation.options import TurnOptions
from device_sdk.conversation.overflow import Overflow, turns_to_drop
from device_sdk.conversation.turns import Turn, asked_messages, messages_of
from device_sdk.ending import answer_of
from device_sdk.errors import (
    ConfigurationError,
    ConversationBusyError,
    NoRefinementError,
    OtherModelError,
    PromptTooLongError,
)
from device_sdk.events import Cancelled, Event, Failed, Finished, Notice, Token
from device_sdk.kept import KeptKV
from device_sdk.report import Answer
from device_sdk.settings import Mode
from model_runtime.core import Cancellation, Message
from model_runtime.errors import KVMismatchError
from model_runtime.tools.spec import Tool


class Conversation:
    """Turns over one client. What the device has read stays in its KV cache and is read once: a turn reads what is new,
    found by the longest common prefix, so editing, regenerating and branching keep what they share.

    One turn at a time; several conversations over a client run side by side. Use as `async with`, or `close` it, so
    that its KV cache is freed. The client keeps `warm_conversations` of them warm; one that had to give its place to
    others reads from the start again, and is none the worse. `overflow`: what to do where prompt and answer do not fit
    the device's context.
    """

    def __init__(
        self, client: HybridClient, *, system: str | None = None, overflow: Overflow | str = Overflow.ERROR
    ) -> None:
        self.client = client
        self.system = system
        try:
            self.overflow = Overflow(overflow)
        except ValueError:
            known = ", ".join(repr(each.value) for each in Overflow)
            raise ConfigurationError(f"overflow is {overflow!r}; expected one of {known}") from None
        #: How many of the oldest turns are left out of the prompt.
        self.dropped = 0
        self._turns: list[Turn] = []
        self._kept = KeptKV()
        #: Of the latest turn: they are part of the prompt.
        self._tools: tuple[Tool, ...] = ()
        self._busy = False
        self._closed = False
        self._warming: Cancellation | None = None
        self._warmed = asyncio.Event()
        self._warmed.set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def turns(self) -> tuple[Turn, ...]:
        return tuple(self._turns)

    @property
    def messages(self) -> list[Message]:
        """All that was said, with the system text, also what is left out of the prompt."""
        return messages_of(self.system, self._turns)

    @property
    def warm_tokens(self) -> int:
        """Tokens in the device's KV cache; 0 for a cold conversation."""
        return len(self._kept.reading)

    # --- turns ---------------------------------------------------------------------------------------------------

    async def send(self, content: str | Sequence[Message], **options: Unpack[TurnOptions]) -> Answer:
        """The whole answer to `content`. Raises as `HybridClient.generate` does, and what `stream` raises."""
        return await self._answer(content, len(self._turns), options)

    async def edit(self, turn: int, content: str | Sequence[Message], **options: Unpack[TurnOptions]) -> Answer:
        """Ask `content` in the place of turn `turn` (counted as in a list); it and what follows are forgotten. Raises
        as `send` does, and IndexError; the turns are as before where nothing was started."""
        return await self._answer(content, self._index(turn), options)

    async def regenerate(self, **options: Unpack[TurnOptions]) -> Answer:
        """Answer the last turn's question anew; with greedy sampling, or the same seed, that is the same answer. Raises
        as `edit` does."""
        index = self._index(-1)
        return await self._answer(self._turns[index].asked, index, options)

    async def stream(
        self, content: str | Sequence[Message], *, at: int | None = None, **options: Unpack[TurnOptions]
    ) -> AsyncGenerator[Event, None]:
        """Events as `HybridClient.stream` yields them. `content`: the user's text, or messages. `at`: in the place of
        this turn, and of what follows it; None: after the last one.

        The turn is part of the conversation once it ends: with its whole answer, or with what was shown of it where the
        caller cancelled (closed the generator) after the first text. A turn that failed leaves no trace but Failed.

        Raises, before the first event, ConversationBusyError, PromptTooLongError (NoRefinementError) as `overflow`
        says, IndexError, and what `HybridClient.stream` raises; the turns are as before then.
        """
        place = len(self._turns) if at is None else self._index(at)
        await self._begin()
        options["tools"] = self._tools = tuple(options.get("tools", ()))
        ended = False
        try:
            asked = asked_messages(content)
            dropped = self._fit(place, asked, options)
            notice = None
            if dropped > self.dropped:
                notice = Notice("turns_dropped", f"the oldest {dropped} turns do not fit the device's context any more")
                yield notice
            prompt = messages_of(self.system, self._turns[dropped:place], asked)
            # As long as nothing else is known: what was shown, by a caller who goes away.
            turn: Turn | None = Turn(asked, "", complete=False)
            try:
                async with aclosing(self.client.stream(prompt, kept=self._kept, **options)) as events:
                    async for received in events:
                        event = received if notice is None else _with(received, notice)
                        turn = _grown(turn, event)
                        if isinstance(event, Finished | Failed | Cancelled):
                            # Before it is seen: whoever leaves at the end may ask again at once.
                            ended = True
                            self._settle(place, dropped, turn)
                            self._end()
                        yield event
            finally:
                if not ended:
                    self._settle(place, dropped, turn)
        finally:
            if not ended:
                self._end()

    async def branch(self, turns: int | None = None) -> Conversation:
        """A second conversation with the first `turns` turns of this one (None: all), which goes its own way and shares
        what the device has read, where there is room for both. Raises ConversationBusyError."""
        await self._begin()
        try:
            branch = Conversation(self.client, system=self.system, overflow=self.overflow)
            branch._turns = self._turns[:turns]
            branch.dropped = min(self.dropped, len(branch._turns))
            if self.client.shelf is not None:
                branch._kept = await self.client.shelf.fork(self._kept)
            return branch
        finally:
            self._end()

    async def warm(self) -> int:
        """Have the device read now what it has not read of the conversation so far (a document in the system text, what
        the cloud said, what a refinement left out), so that the next turn reads nothing but itself. Returns how many
        tokens it read: fewer where a turn or `close` came in between, 0 where there is no device or no room.

        It costs the device's energy, so nothing does it unasked. Raises DeviceError.
        """
        await self._begin()
        shelf, info, tokenizer = self.client.shelf, self.client.device_info, self.client.tokenizer
        prompt = messages_of(self.system, self._turns[self.dropped :])
        cancellation = self._warming = Cancellation()
        self._warmed.clear()
        self._busy = False  # a turn may begin: it ends the reading and waits for one pass at most
        try:
            if shelf is None or info is None or tokenizer is None or not prompt:
                return 0
            tokens = tokenizer.render_chat(prompt, add_generation_prompt=False, tools=self._tools)
            if len(tokens) >= info.context_length:
                return 0
            return await shelf.read(self._kept, tokens, cancellation)
        except asyncio.CancelledError:
            cancellation.cancel()
            raise
        finally:
            self._warming = None
            self._warmed.set()
            if self._closed:
                self._drop()

    # --- on disk -------------------------------------------------------------------------------------------------

    async def save(self, path: str | Path, *, kv: bool = True) -> saved.Saved:
        """Write the conversation to a file, with what the device has read of it (`kv`), whole or not at all; only this
        user may read it. Returns what the file says. Raises ConversationBusyError, ConversationFileError, and
        UnsupportedError where the engine cannot give its KV cache away."""
        await self._begin()
        try:
            file = saved.Saved(self.system, self.overflow.value, saved.saved_turns(self._turns), self.dropped)
            data = b""
            info = self.client.device_info
            if kv and self.client.shelf is not None and info is not None:
                reading, data = await self.client.shelf.export(self._kept)
                if data:
                    file = saved.with_kv(file, info, reading, len(data))
            await asyncio.to_thread(saved.write, Path(path), file, data)
            return file
        finally:
            self._end()

    @classmethod
    async def restore(cls, client: HybridClient, path: str | Path, *, kv: bool = True) -> Conversation:
        """A conversation from a file, as warm as it was saved. `kv=False`: its text alone, for any model.

        Raises ConversationFileError; OtherModelError where the file's KV cache belongs to another model or engine than
        the client's; DeviceError.
        """
        path = Path(path)
        file, data = await asyncio.to_thread(saved.read, path, kv=kv)
        turns = saved.restored_turns(file, path)
        conversation = cls(client, system=file.system, overflow=file.overflow)
        conversation._turns, conversation.dropped = turns, file.dropped
        if data:
            info = client.device_info
            file.check_engine(info, path)
            assert client.shelf is not None and info is not None  # noqa: S101, PT018 - checked
            try:
                conversation._kept = await client.shelf.restore(file.reading(info, path), data)
            except KVMismatchError as error:
                raise OtherModelError(
                    f"the KV cache in {path} cannot be used: {error}; restore with kv=False"
                ) from error
        return conversation

    async def close(self) -> None:
        """Free what it keeps on the device, now or, where a turn is under way, when that ends. Idempotent."""
        self._closed = True
        await self._stop_warming()
        if not self._busy:
            self._drop()

    # --- parts ---------------------------------------------------------------------------------------------------

    async def _answer(self, content: str | Sequence[Message], at: int, options: TurnOptions) -> Answer:
        place = None if at == len(self._turns) else at
        events = self.stream(content, at=place, **options)
        return await answer_of(events, cancelled="the turn was cancelled, or the client closed")

    async def _begin(self) -> None:
        if self._closed:
            raise ConversationBusyError("the conversation is closed; branch before closing, or begin a new one")
        if self._busy:
            raise ConversationBusyError("a turn of this conversation is under way; wait for it, cancel it, or branch")
        self._busy = True
        await self._stop_warming()

    def _end(self) -> None:
        self._busy = False
        if self._closed:
            self._drop()

    async def _stop_warming(self) -> None:
        if self._warming is not None:
            self._warming.cancel()
        await self._warmed.wait()

    def _drop(self) -> None:
        if self.client.shelf is not None:
            self.client.shelf.drop(self._kept)

    def _index(self, turn: int) -> int:
        if not -len(self._turns) <= turn < len(self._turns):
            raise IndexError(f"there is no turn {turn}: the conversation has {len(self._turns)}")
        return turn % len(self._turns)

    def _settle(self, place: int, dropped: int, turn: Turn | None) -> None:
        """What the turn leaves behind: nothing where it failed, or was cancelled before it said anything."""
        if turn is not None and (turn.complete or turn.answer or turn.tool_calls):
            self._turns[place:] = [turn]
            self.dropped = dropped

    def _fit(self, place: int, asked: Sequence[Message], options: TurnOptions) -> int:
        """How many of the oldest turns the prompt leaves out. Raises PromptTooLongError, NoRefinementError."""
        dropped = min(self.dropped, place)
        client, mode = self.client, options.get("mode") or self.client.mode
        if client.tokenizer is None or client.device_info is None or not mode.uses_device:
            return dropped
        tokenizer, context = client.tokenizer, client.device_info.context_length
        most = options.get("max_tokens", DEFAULT_MAX_TOKENS)
        answer = min(DEFAULT_MAX_TOKENS, context // 4) if most is None else most
        room, tools = context - answer, tuple(options.get("tools", ()))

        def length(count: int) -> int:
            prompt = messages_of(self.system, self._turns[count:place], asked)
            return len(tokenizer.render_chat(prompt, tools=tools))

        if (tokens := length(dropped)) <= room:
            return dropped
        problem = (
            f"{tokens} prompt tokens ({place - dropped} turns and a new one) and up to {answer} of the answer do not "
            f"fit the device's context of {context}"
        )
        match self.overflow:
            case Overflow.REFINE:
                if objection := self._cannot_refine(mode, options):
                    raise NoRefinementError(f"{problem}, and {objection}; shorten it, or use overflow='drop_oldest'")
                return dropped
            case Overflow.DROP_OLDEST:
                found = turns_to_drop(length, dropped, place, room)
                if found is None:
                    raise PromptTooLongError(f"{problem}, even without earlier turns; shorten what is asked")
                return found
            case Overflow.ERROR:
                hint = "edit an earlier turn, lower max_tokens, or use overflow='refine' or 'drop_oldest'"
                raise PromptTooLongError(f"{problem}; {hint}")

    def _cannot_refine(self, mode: Mode, options: TurnOptions) -> str | None:
        if mode is not Mode.SPLIT:
            return f"{mode.value} refines nothing: only a split does"
        if options.get("refine") is False:
            return "refine=False was asked for"
        if not self.client.cloud_refines:
            return "the cloud service does not refine: it gave no refinement when it was last asked for one"
        return None


def _grown(turn: Turn | None, event: Event) -> Turn | None:
    """The turn as it is after `event`; None where it failed."""
    match event:
        case Token(text=text) if turn is not None:
            return replace(turn, answer=turn.answer + text)
        case Finished(answer=answer) | Cancelled(answer=answer) if turn is not None:
            whole = isinstance(event, Finished)
            return Turn(turn.asked, answer.text, answer.tool_calls, whole, answer.report)
        case Failed():
            return None
        case _:
            return turn


def _with(event: Event, notice: Notice) -> Event:
    """A terminal event whose report tells of `notice`, too."""
    if not isinstance(event, Finished | Cancelled):
        return event
    report = event.answer.report
    notices = (f"{notice.kind}: {notice.message}", *report.notices)
    return replace(event, answer=replace(event.answer, report=replace(report, notices=notices)))
