"""Conversations as files: Markdown to read, JSON to keep and to bring back."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from demos.chat.history.errors import BadImportError
from demos.chat.history.records import Conversation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from demos.chat.history.records import Message

_FORMAT = "pd-chat"
_VERSION = 1


@dataclass(frozen=True, slots=True)
class _File:
    format: str
    version: int
    conversations: tuple[Conversation, ...]


def to_json(conversations: Sequence[Conversation]) -> str:
    """Everything, every branch."""
    data = msgspec.json.encode(_File(_FORMAT, _VERSION, tuple(conversations)))
    return msgspec.json.format(data, indent=2).decode() + "\n"


def from_json(text: str) -> list[Conversation]:
    """What `to_json` wrote, under new ids, so that it may be brought in twice. Raises BadImportError."""
    try:
        file = msgspec.json.decode(text, type=_File)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise BadImportError(f"this is no export of pd-chat in JSON: {error}") from None
    if file.format != _FORMAT or file.version != _VERSION:
        raise BadImportError(
            f"this file says {file.format!r} version {file.version}; {_FORMAT!r} version {_VERSION} can be imported"
        )
    return [_renamed(conversation) for conversation in file.conversations]


def to_markdown(conversation: Conversation) -> str:
    """The branch that is shown."""
    day = datetime.fromtimestamp(conversation.summary.created_at, UTC).strftime("%Y-%m-%d")
    parts = [f"# {conversation.summary.title}", f"*{day}*"]
    for message in shown_path(conversation):
        parts.append("## You" if message.role == "user" else "## Answer")
        # A fence longer than any inside, so that a document cannot end its own quotation.
        for attachment in message.attachments:
            fence = "`" * max(3, _longest_fence(attachment.text) + 1)
            parts.append(f"**{attachment.name}**\n\n{fence}text\n{attachment.text}\n{fence}")
        parts.append(message.text)
        report = message.details.report
        if report is not None:
            parts.append(
                f"> {report.cloud_tokens} tokens from the cloud, {report.device_tokens} from the device"
                + (f", first token after {report.ttft_ms:.0f} ms" if report.ttft_ms is not None else "")
            )
    return "\n\n".join(part for part in parts if part) + "\n"


def shown_path(conversation: Conversation) -> list[Message]:
    """From the first question to the leaf."""
    known = {message.id: message for message in conversation.messages}
    path: list[Message] = []
    at = conversation.leaf
    while at is not None and at in known and len(path) < len(known):
        path.append(known[at])
        at = known[at].parent
    return path[::-1]


def copy_of(conversation: Conversation, title: str) -> Conversation:
    """A conversation of its own from the branch that is shown."""
    branch = replace(conversation, messages=tuple(shown_path(conversation)), draft="", pending=())
    copied = _renamed(branch)
    now = time.time()
    return replace(copied, summary=replace(copied.summary, title=title, pinned=False, created_at=now, updated_at=now))


def _renamed(conversation: Conversation) -> Conversation:
    ids = {message.id: uuid.uuid4().hex for message in conversation.messages}
    seen: set[str] = set()
    messages = []
    for message in conversation.messages:
        if message.parent is not None and message.parent not in seen:
            raise BadImportError(f"message {message.id!r} follows {message.parent!r}, which is not before it")
        seen.add(message.id)
        parent = None if message.parent is None else ids[message.parent]
        state = "cut_off" if message.state == "streaming" else message.state
        messages.append(replace(message, id=ids[message.id], parent=parent, state=state))
    leaf = ids.get(conversation.leaf or "", messages[-1].id if messages else None)
    summary = replace(conversation.summary, id=uuid.uuid4().hex, snippet="")
    return replace(conversation, summary=summary, messages=tuple(messages), leaf=leaf)


def _longest_fence(text: str) -> int:
    longest = run = 0
    for character in text:
        run = run + 1 if character == "`" else 0
        longest = max(longest, run)
    return longest
