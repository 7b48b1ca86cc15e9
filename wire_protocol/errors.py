"""Everything wire_protocol raises on purpose.

ProtocolError               carries `close_code`: what to close the connection with
├── DecodeError                 the peer's fault
│   ├── WrongFrameError             a text frame where binary travels, or the reverse        (1003)
│   ├── MalformedError              no MessagePack, no JSON, no UTF-8                         (1007)
│   ├── InvalidMessageError         well-formed, but no message of the protocol: `path` says where (1008)
│   └── MessageTooBigError          larger than MAX_MESSAGE_BYTES                             (1009)
├── OutOfOrderError             the peer's fault: a legal message at a time when it is not    (1008)
├── VersionError                no version that both sides speak                              (4002)
├── SubprotocolError            no subprotocol that both sides speak; refused at the upgrade  (1002)
└── EncodeError                 our own fault: a message that the peer would refuse, when made or encoded (1011)
"""

from __future__ import annotations

from typing import ClassVar

from wire_protocol.close_codes import CloseCode


class ProtocolError(Exception):
    """Base of all errors of wire_protocol."""

    close_code: ClassVar[CloseCode] = CloseCode.POLICY_VIOLATION


class DecodeError(ProtocolError):
    """What the peer sent is no message. The text says where and what was expected, and never quotes content."""


class WrongFrameError(DecodeError):
    """A text frame where binary frames travel, or the reverse."""

    close_code = CloseCode.UNSUPPORTED_DATA


class MalformedError(DecodeError):
    """The bytes are not what the subprotocol says: no MessagePack, no JSON, no UTF-8, something after the end."""

    close_code = CloseCode.INVALID_PAYLOAD


class MessageTooBigError(DecodeError):
    """Larger than MAX_MESSAGE_BYTES."""

    close_code = CloseCode.MESSAGE_TOO_BIG


class InvalidMessageError(DecodeError):
    """Well-formed, but no message of the protocol."""

    def __init__(self, text: str, *, path: str, generation: str | None) -> None:
        super().__init__(text)
        #: Where, as in `$.sampling.top_p`; `$` is the message itself.
        self.path = path
        #: The id of a `generate` that was refused, so that it can be answered by an `error` with that id and the
        #: connection live on; None for any other message, and where the id itself is not valid.
        self.generation = generation


class OutOfOrderError(ProtocolError):
    """A legal message at a time when it is not: for an unknown generation, an id in use, a gap in the output."""

    def __init__(self, text: str, generation: str | None = None) -> None:
        super().__init__(text)
        #: The generation that it is about; None for the connection.
        self.generation = generation


class VersionError(ProtocolError):
    """No version that both sides speak."""

    close_code = CloseCode.VERSION


class SubprotocolError(ProtocolError):
    """No subprotocol that both sides speak. The upgrade is refused, so that no close frame is ever sent for it."""

    close_code = CloseCode.PROTOCOL_ERROR


class EncodeError(ProtocolError, ValueError):
    """A message that the peer would refuse: the caller's fault, raised when it is made or before it is sent."""

    close_code = CloseCode.INTERNAL_ERROR
