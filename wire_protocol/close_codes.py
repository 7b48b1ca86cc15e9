"""Why a connection closed: WebSocket close codes (RFC 6455 §7.4), what each means here, and who may try again.

Retrying means to connect anew, after a back-off with jitter, and to send each unfinished generation as a new
`generate` with the output so far. It never blocks the answer: the device is already on its way alone.
"""

from __future__ import annotations

import enum
from typing import Self

# A control frame carries 125 bytes, two of them the code (RFC 6455 §5.5).
_LONGEST_REASON = 123


class CloseCode(enum.IntEnum):
    """A close code with its `meaning` and whether a client may connect again (`retriable`).

    Private codes (4xxx) exist only where a client must tell one cause from another to decide what to do.
    """

    meaning: str
    retriable: bool

    def __new__(cls, value: int, retriable: bool = False, meaning: str = "") -> Self:
        member = int.__new__(cls, value)
        member._value_ = value
        member.retriable = retriable
        member.meaning = meaning
        return member

    NORMAL = 1000, False, "Done: nothing is left to say."
    GOING_AWAY = (
        1001,
        True,
        "The service drains or the app quits. Open generations end with the link; go to any instance.",
    )
    PROTOCOL_ERROR = 1002, False, "The peer breaks the WebSocket framing itself. Sent by the WebSocket library."
    UNSUPPORTED_DATA = 1003, False, "A text frame under `pd.v1`, or a binary frame under `pd.v1+json`."
    ABNORMAL = 1006, True, "Never sent: what a client reports when the link was lost without a close frame."
    INVALID_PAYLOAD = 1007, False, "The bytes are no MessagePack, no JSON or no UTF-8."
    POLICY_VIOLATION = (
        1008,
        False,
        "Well-formed, but not a message of the protocol, or out of order. The reason names the field.",
    )
    MESSAGE_TOO_BIG = 1009, False, "A message is larger than `limits.max_message_bytes`."
    INTERNAL_ERROR = 1011, True, "The sender's fault, or its heartbeat got no answer in time."
    TRY_AGAIN_LATER = 1013, True, "Too many connections: try another instance, or this one later."
    BAD_HELLO = 4000, False, "The first message was not `hello` (or the answer not `welcome`), or none came in time."
    UNAUTHORISED = (
        4001,
        False,
        "The bearer token is no longer valid. At the upgrade this is HTTP 401 and no WebSocket opens.",
    )
    VERSION = 4002, False, "No version that both sides speak: update the older one."
    MODEL = 4003, False, "The model that `hello` wants is not served here."
    SLOW_READER = 4004, True, "The peer does not read fast enough and the sender's buffer is full."


def may_retry(code: int | None) -> bool:
    """Whether a client may connect again after `code`; None where the link was lost without a close frame.

    A code that is not listed is retried, unless it is private (3000 and up): then only a newer client knows it.
    """
    if code is None:
        return True
    try:
        return CloseCode(code).retriable
    except ValueError:
        return code < 3000


def close_reason(text: str) -> str:
    """`text` cut to what a close frame can carry (123 bytes of UTF-8)."""
    return text.encode(errors="replace")[:_LONGEST_REASON].decode(errors="ignore")
