"""The sync twin of Conversation, over a SyncHybridClient."""

from __future__ import annotations

from collections.abc import Coroutine, Generator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

from device_sdk.conversation.conversation import Conversation
from device_sdk.conversation.options import TurnOptions
from device_sdk.conversation.overflow import Overflow
from device_sdk.conversation.saved import Saved
from device_sdk.conversation.turns import Turn
from device_sdk.events import Event
from device_sdk.report import Answer
from device_sdk.sync import SyncHybridClient
from model_runtime.core import Message

T = TypeVar("T")


class SyncConversation:
    """As Conversation, for code without an event loop; use as `with`. Other conversations may run in other threads."""

    def __init__(
        self, client: SyncHybridClient, *, system: str | None = None, overflow: Overflow | str = Overflow.ERROR
    ) -> None:
        self.client = client
        self._conversation = Conversation(client.client, system=system, overflow=overflow)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def turns(self) -> tuple[Turn, ...]:
        return self._conversation.turns

    @property
    def messages(self) -> list[Message]:
        """As Conversation.messages."""
        return self._conversation.messages

    @property
    def warm_tokens(self) -> int:
        """As Conversation.warm_tokens."""
        return self._conversation.warm_tokens

    def send(self, content: str | Sequence[Message], **options: Unpack[TurnOptions]) -> Answer:
        """As Conversation.send; a KeyboardInterrupt cancels the turn."""
        return self._run(self._conversation.send(content, **options))

    def edit(self, turn: int, content: str | Sequence[Message], **options: Unpack[TurnOptions]) -> Answer:
        """As Conversation.edit."""
        return self._run(self._conversation.edit(turn, content, **options))

    def regenerate(self, **options: Unpack[TurnOptions]) -> Answer:
        """As Conversation.regenerate."""
        return self._run(self._conversation.regenerate(**options))

    def stream(
        self, content: str | Sequence[Message], *, at: int | None = None, **options: Unpack[TurnOptions]
    ) -> Generator[Event, None, None]:
        """As Conversation.stream; closing the generator cancels the turn."""
        return self.client.events(self._conversation.stream(content, at=at, **options))

    def branch(self, turns: int | None = None) -> SyncConversation:
        """As Conversation.branch."""
        return self._over(self.client, self._run(self._conversation.branch(turns)))

    def warm(self) -> int:
        """As Conversation.warm, which blocks until all is read."""
        return self._run(self._conversation.warm())

    def save(self, path: str | Path, *, kv: bool = True) -> Saved:
        """As Conversation.save."""
        return self._run(self._conversation.save(path, kv=kv))

    @classmethod
    def restore(cls, client: SyncHybridClient, path: str | Path, *, kv: bool = True) -> SyncConversation:
        """As Conversation.restore."""
        return cls._over(client, client.run(Conversation.restore(client.client, path, kv=kv)))

    def close(self) -> None:
        """As Conversation.close. Idempotent."""
        self._run(self._conversation.close())

    @classmethod
    def _over(cls, client: SyncHybridClient, conversation: Conversation) -> SyncConversation:
        made = cls.__new__(cls)
        made.client, made._conversation = client, conversation
        return made

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.client.run(work)
