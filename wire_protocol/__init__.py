"""What travels between device and cloud: messages, codec, close codes. No I/O."""

from wire_protocol.close_codes import CloseCode, close_reason, may_retry
from wire_protocol.codec import (
    SUBPROTOCOLS,
    WEBSOCKET_PATH,
    Codec,
    JsonCodec,
    MessagePackCodec,
    choose_subprotocol,
    codec_for,
)
from wire_protocol.decoding import MAX_MESSAGE_BYTES
from wire_protocol.errors import (
    DecodeError,
    EncodeError,
    InvalidMessageError,
    MalformedError,
    MessageTooBigError,
    OutOfOrderError,
    ProtocolError,
    SubprotocolError,
    VersionError,
    WrongFrameError,
)
from wire_protocol.ledger import GenerationLedger
from wire_protocol.messages import PROTOCOL_VERSION, CloudMessage, DeviceMessage, terminal
from wire_protocol.versions import confirm, negotiate

__all__ = [
    "MAX_MESSAGE_BYTES",
    "PROTOCOL_VERSION",
    "SUBPROTOCOLS",
    "WEBSOCKET_PATH",
    "CloseCode",
    "CloudMessage",
    "Codec",
    "DecodeError",
    "DeviceMessage",
    "EncodeError",
    "GenerationLedger",
    "InvalidMessageError",
    "JsonCodec",
    "MalformedError",
    "MessagePackCodec",
    "MessageTooBigError",
    "OutOfOrderError",
    "ProtocolError",
    "SubprotocolError",
    "VersionError",
    "WrongFrameError",
    "choose_subprotocol",
    "close_reason",
    "codec_for",
    "confirm",
    "may_retry",
    "negotiate",
    "terminal",
]
