"""The stream of one completion: server-sent events to pieces. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


class StreamError(Exception):
    """The server says, in the middle of a stream or by how it ends, that the completion failed."""


@dataclass(frozen=True, slots=True)
class Piece:
    """What one event brought. Text may be empty where ids are not, and the other way round."""

    ids: tuple[int, ...] = ()
    text: str = ""
    #: `stop` or `length`, with the last piece; empty before.
    finish: str = ""
    prompt_tokens: int | None = None
    cached_tokens: int = 0


class EventReader:
    """Bytes in, the data of events out (WHATWG HTML §9.2.6, of which these servers use `data:` and comments).

    Lines end in LF, CR LF or CR and in nothing else: text holds characters that Python also takes for line ends.
    """

    def __init__(self) -> None:
        self._rest = b""

    def push(self, data: bytes) -> Iterator[bytes]:
        *lines, self._rest = (self._rest + data).replace(b"\r\n", b"\n").split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                yield line[5:].strip()


def piece_of(data: bytes) -> Piece | None:
    """One event; None for the end of the stream. Raises StreamError.

    An engine that dies tells so in an event, and then ends the stream as if all were well, with status 200.
    """
    if data == b"[DONE]":
        return None
    try:
        event: Any = json.loads(data)
        if "error" in event:
            error = event["error"]
            raise StreamError(str(error.get("message", error) if isinstance(error, dict) else error)[:500])
        usage = event.get("usage") or {}
        details = usage.get("prompt_tokens_details") or {}
        choice = event["choices"][0] if event.get("choices") else {}
        return Piece(
            ids=tuple(map(int, choice.get("token_ids") or ())),
            text=str(choice.get("text") or ""),
            finish=str(choice.get("finish_reason") or ""),
            prompt_tokens=usage.get("prompt_tokens"),
            cached_tokens=int(details.get("cached_tokens") or 0),
        )
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise StreamError(f"the server sent an event that is no completion ({type(error).__name__})") from None
