"""What every part of the view-model needs, and how a question is asked."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from demos.chat.answering.planned import CHARACTERS_PER_TOKEN, characters, plan_for, read_plan
from demos.chat.emitter import Emitter
from demos.chat.history.errors import HistoryGoneError
from demos.chat.viewmodel.modes import possible
from demos.chat.viewmodel.problems import NobodyAnswersError, Problem, problem_of
from device_sdk import Mode

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence

    from demos.chat.background import Background
    from demos.chat.history.records import Conversation
    from demos.chat.history.store import Store
    from demos.chat.history.worker import History
    from demos.chat.viewmodel.settings import Settings
    from demos.chat.viewmodel.sides import SidesModel
    from device_sdk import Event
    from model_runtime.core import Cancellation, Message


@dataclass(frozen=True, slots=True)
class Begun:
    """The sides are ready and the question is on its way."""

    mode: Mode
    #: Why it is not the mode that was chosen.
    reason: str | None


@dataclass(frozen=True, slots=True)
class Stamped:
    """What happened, and when: seconds since the question was sent."""

    at: float
    event: Begun | Event


@dataclass(slots=True)
class Services:
    background: Background
    history: History
    sides: SidesModel
    settings: Settings
    #: What everybody should see, whatever is on the screen.
    trouble: Emitter[Problem] = field(default_factory=Emitter)
    #: After anything was written to the history.
    written: Emitter[None] = field(default_factory=Emitter)
    #: What could not be saved is saved.
    recovered: Emitter[None] = field(default_factory=Emitter)
    _told: bool = False
    #: Of which conversations a write failed; by their ids, how to get at all of one, or None for now.
    _lost: dict[str, Callable[[], Conversation | None]] = field(default_factory=dict)

    def write(
        self,
        work: Callable[[Store], Any],
        *,
        listed: bool = True,
        of: tuple[str, Callable[[], Conversation | None]] | None = None,
    ) -> None:
        """Do it with the history, in order. `listed`: the list of conversations shows it. Where it fails the chat goes
        on, and the conversation that it is `of` is saved as a whole as soon as that works: see `try_again`."""

        def done(_: Any) -> None:
            if listed:
                self.written.emit(None)

        def failed(error: Exception) -> None:
            if of is not None and not isinstance(error, HistoryGoneError):
                self._lost[of[0]] = of[1]
            self.unsaved(error)

        self.background.run(lambda: self.history.do(work), done, failed)

    def unsaved(self, error: Exception) -> None:
        """The history failed. Told once, until it works again."""
        if not self._told:
            self._told = True
            self.trouble.emit(problem_of(error))

    def try_again(self) -> None:
        """Save what could not be saved; asked for every few seconds, and quiet where it fails again."""

        def saved(id_: str, _: None) -> None:
            self._lost.pop(id_, None)
            self.written.emit(None)
            if not self._lost:
                self._told = False
                self.recovered.emit(None)

        for id_, whole in self._lost.items():
            conversation = whole()
            if conversation is not None:
                put = partial(_put, conversation)
                self.background.run(partial(self.history.do, put), partial(saved, id_), lambda _: None)

    async def ask(
        self, messages: Sequence[Message], mode: Mode, cancellation: Cancellation | None = None
    ) -> AsyncGenerator[Stamped, None]:
        """Waits for the sides, then says what happens. On the event loop's thread. Closing it cancels the answer;
        `cancellation`, from any thread, ends it in Cancelled, with its report."""
        settings = self.settings
        answering = await self.sides.answering()
        if answering is None:
            raise NobodyAnswersError(self.sides.why_not())
        split, planned = settings.split(), None
        # A split configuration decides where the user left it to "split", and nothing that the user decided.
        if settings.split_file and mode is Mode.SPLIT:
            config = await asyncio.to_thread(read_plan, settings.split_file)
            tokens = answering.count(messages) if answering.count else characters(messages) // CHARACTERS_PER_TOKEN
            mode, split, planned = plan_for(config, tokens, split)
        mode, reason = possible(mode, device=answering.device, cloud=answering.cloud)
        events = answering.client.stream(
            messages,
            max_tokens=settings.max_tokens,
            sampling=settings.sampling(),
            mode=mode,
            split=split,
            progress=True,
            cancellation=cancellation,
        )
        loop = asyncio.get_running_loop()
        start = loop.time()
        yield Stamped(0.0, Begun(mode, reason or planned))
        async with aclosing(events):
            async for event in events:
                yield Stamped(loop.time() - start, event)


def _put(conversation: Conversation, store: Store) -> None:
    store.insert(conversation)
