"""Messages to frames and back, strictly: what is not exactly a message is refused. No I/O.

`pd.v1` is MessagePack in binary frames, `pd.v1+json` the same messages as JSON in text frames (bytes as base64).
A codec has no state: one may be shared by all connections and threads.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, get_args

import msgspec

from wire_protocol.decoding import REFUSALS, MessageDecoder, is_generation_id
from wire_protocol.errors import (
    EncodeError,
    InvalidMessageError,
    MalformedError,
    MessageTooBigError,
    SubprotocolError,
    WrongFrameError,
)
from wire_protocol.messages import INTEGER_LIMIT, CloudMessage, DeviceMessage, Tokens

if TYPE_CHECKING:
    from collections.abc import Sequence


#: Where a service answers the upgrade.
WEBSOCKET_PATH = "/v1/pd"


_DEVICE_MESSAGES = frozenset(get_args(DeviceMessage))


class Codec(ABC):
    """One subprotocol: how messages become frames."""

    #: What is named in `Sec-WebSocket-Protocol`.
    subprotocol: ClassVar[str]
    _device: MessageDecoder[DeviceMessage]
    _cloud: MessageDecoder[CloudMessage]

    @abstractmethod
    def encode(self, message: DeviceMessage | CloudMessage) -> bytes | str:
        """The frame that carries `message`. Raises EncodeError for a message that the peer would refuse."""

    def decode_device(self, frame: bytes | str) -> DeviceMessage:
        """What a device sent. Raises DecodeError, and nothing else whatever the frame holds."""
        return self._device.decode(self._payload(frame))

    def decode_cloud(self, frame: bytes | str) -> CloudMessage:
        """What a cloud service sent. Raises DecodeError, and nothing else whatever the frame holds."""
        return self._cloud.decode(self._payload(frame))

    @abstractmethod
    def _payload(self, frame: bytes | str) -> bytes: ...

    def _checked(self, message: DeviceMessage | CloudMessage, encode: Any) -> bytes:
        """Encode, and decode as the peer will: a fault shows here, with its cause, and not as a closed connection."""
        if type(message) is Tokens and _is_one_token(message):
            token: bytes = encode(message)
            return token
        side = self._device if type(message) in _DEVICE_MESSAGES else self._cloud
        try:
            data: bytes = encode(message)
            side.decode(data)
        except (MalformedError, InvalidMessageError, MessageTooBigError) as error:
            raise EncodeError(f"not sent, the peer would refuse it: {error}") from None
        except (*REFUSALS, OverflowError, TypeError) as error:
            raise EncodeError(f"not sent, `{type(message).__name__}` cannot be encoded: {error}") from None
        return data


def _is_one_token(message: Tokens) -> bool:
    """Whether it is one id, as nearly every message is, that the peer will take: known sooner than by decoding it."""
    name, first, ids, count, data = message.id, message.first, message.ids, message.count, message.data
    if type(ids) is not tuple or len(ids) != 1:
        return False
    if (type(name), type(first), type(ids[0]), type(count), type(data)) != (str, int, int, int, bytes):
        return False
    if count or data:
        return False
    return 0 <= ids[0] < INTEGER_LIMIT and 0 <= first < INTEGER_LIMIT and is_generation_id(name)


class MessagePackCodec(Codec):
    """`pd.v1`: MessagePack in binary frames."""

    subprotocol = "pd.v1"

    def __init__(self) -> None:
        self._device = MessageDecoder(DeviceMessage, CloudMessage, msgspec.msgpack)
        self._cloud = MessageDecoder(CloudMessage, DeviceMessage, msgspec.msgpack)

    def encode(self, message: DeviceMessage | CloudMessage) -> bytes:
        return self._checked(message, msgspec.msgpack.encode)

    def _payload(self, frame: bytes | str) -> bytes:
        if isinstance(frame, str):
            raise WrongFrameError(f"a text frame; {self.subprotocol} travels in binary frames")
        return frame


class JsonCodec(Codec):
    """`pd.v1+json`: JSON in text frames, for browsers and for reading along."""

    subprotocol = "pd.v1+json"

    def __init__(self) -> None:
        self._device = MessageDecoder(DeviceMessage, CloudMessage, msgspec.json)
        self._cloud = MessageDecoder(CloudMessage, DeviceMessage, msgspec.json)

    def encode(self, message: DeviceMessage | CloudMessage) -> str:
        return self._checked(message, msgspec.json.encode).decode()

    def _payload(self, frame: bytes | str) -> bytes:
        if not isinstance(frame, str):
            raise WrongFrameError(f"a binary frame; {self.subprotocol} travels in text frames")
        try:
            return frame.encode()
        except UnicodeEncodeError:
            raise MalformedError("a text is not valid UTF-8: it holds a lone surrogate") from None


_CODECS: dict[str, Codec] = {codec.subprotocol: codec for codec in (MessagePackCodec(), JsonCodec())}

#: In order of preference.
SUBPROTOCOLS: tuple[str, ...] = tuple(_CODECS)


def codec_for(subprotocol: str | None) -> Codec:
    """The codec of the subprotocol that the upgrade agreed on; None where it agreed on none.

    Raises SubprotocolError.
    """
    codec = _CODECS.get(subprotocol or "")
    if codec is None:
        raise SubprotocolError(
            f"subprotocol {subprotocol!r} is not spoken here; expected one of {', '.join(SUBPROTOCOLS)}"
        )
    return codec


def choose_subprotocol(offered: Sequence[str]) -> str | None:
    """The one to answer an upgrade with: our first choice of those offered; None if none is (refuse with HTTP 400)."""
    return next((name for name in SUBPROTOCOLS if name in offered), None)
