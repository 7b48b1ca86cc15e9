"""Who may use the service: bearer keys, compared in constant time."""

from __future__ import annotations

import hmac
import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import SecretStr


class OpenServiceError(Exception):
    """The service would listen beyond this machine with no key configured."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose limits a request counts against: a key's name, or an address where no keys are configured."""

    name: str


class KeyRing:
    """The configured keys; none at all lets everybody in (which `refuse_open_service` allows on loopback only)."""

    def __init__(self, keys: Mapping[str, SecretStr]) -> None:
        self._keys = [(name, key.get_secret_value().encode()) for name, key in keys.items()]

    def identify(self, authorization: str | None, address: str) -> Caller | None:
        """Who sends the `Authorization` header; None where it holds no valid key."""
        if not self._keys:
            return Caller(address)
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer":
            return None
        given = token.strip().encode()
        # Every key is compared, so that the time taken does not tell which one came close.
        matches = [name for name, key in self._keys if hmac.compare_digest(given, key)]
        return Caller(matches[0]) if matches else None


def refuse_open_service(host: str, keys: Mapping[str, SecretStr]) -> None:
    """Raises OpenServiceError where anyone on the network could use the service without a key."""
    if not keys and not _is_loopback(host):
        raise OpenServiceError(
            f"no keys are configured and {host!r} is reachable from other machines: "
            'configure keys (in the file: [keys] NAME = "KEY") or listen on 127.0.0.1'
        )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
