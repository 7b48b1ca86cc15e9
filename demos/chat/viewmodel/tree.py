"""A conversation's messages: a tree whose shown branch ends in a leaf. Values and links only."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from demos.chat.viewmodel.messages import MessageModel


class MessageTree:
    def __init__(self, messages: Iterable[MessageModel] = (), leaf: str | None = None) -> None:
        self._messages: dict[str, MessageModel] = {}
        self._children: dict[str | None, list[str]] = {}
        self.leaf: str | None = None
        for message in messages:
            self.add(message)
        if leaf is not None and leaf in self._messages:
            self.leaf = leaf

    def __len__(self) -> int:
        return len(self._messages)

    def __getitem__(self, id_: str) -> MessageModel:
        return self._messages[id_]

    def messages(self) -> list[MessageModel]:
        """All, each behind its parent."""
        return list(self._messages.values())

    def add(self, message: MessageModel) -> None:
        """Behind its parent, as the end of the shown branch."""
        self._messages[message.id] = message
        self._children.setdefault(message.parent, []).append(message.id)
        self.leaf = message.id

    def path(self, to: str | None = None) -> list[MessageModel]:
        """From the first message to `to`, or to the leaf."""
        found = []
        at = to or self.leaf
        while at is not None:
            message = self._messages[at]
            found.append(message)
            at = message.parent
        return found[::-1]

    def place(self, id_: str) -> tuple[int, int]:
        """(which one, of how many) among the versions of this message, counted from 1."""
        versions = self._children[self._messages[id_].parent]
        return versions.index(id_) + 1, len(versions)

    def turn(self, id_: str, step: int) -> bool:
        """Show the version `step` further, with the newest of what follows it. False where there is none."""
        versions = self._children[self._messages[id_].parent]
        at = versions.index(id_) + step
        if not 0 <= at < len(versions):
            return False
        leaf = versions[at]
        while self._children.get(leaf):
            leaf = self._children[leaf][-1]
        self.leaf = leaf
        return True
