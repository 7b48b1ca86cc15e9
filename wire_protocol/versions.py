"""Which version of the messages two sides speak.

A subprotocol (`pd.v1`) stands for how frames are read and for `hello`, `welcome` and `error`, which never change under
it. A version counts the additions since: new messages, new optional fields. Unknown fields are refused, so a side
sends only what the agreed version has. What cannot be an addition gets a new subprotocol (`pd.v2`), offered beside.

`hello` names the newest version that the device speaks; the service answers in `welcome` with the newest that both
speak, which is the smaller of the two. A service keeps every version down to OLDEST_VERSION.
"""

from __future__ import annotations

from wire_protocol.errors import VersionError
from wire_protocol.messages import PROTOCOL_VERSION

#: The oldest version that this package still speaks.
OLDEST_VERSION = 1


def negotiate(offered: int) -> int:
    """The service's side: the version to speak with a client whose newest is `offered`. Raises VersionError."""
    if offered < OLDEST_VERSION:
        raise VersionError(
            f"the client speaks version {offered} at most, this service {OLDEST_VERSION} to {PROTOCOL_VERSION}: "
            "update the client"
        )
    return min(offered, PROTOCOL_VERSION)


def confirm(chosen: int) -> int:
    """The client's side: the version that `welcome` chose, if this client speaks it. Raises VersionError."""
    if not OLDEST_VERSION <= chosen <= PROTOCOL_VERSION:
        raise VersionError(
            f"the service chose version {chosen}, this client speaks {OLDEST_VERSION} to {PROTOCOL_VERSION}: "
            f"update the {'client' if chosen > PROTOCOL_VERSION else 'service'}"
        )
    return chosen
