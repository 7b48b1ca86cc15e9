"""Who may use the service: callers, and the addresses that it is open to."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from cloud_service.keys.records import NO_LIMITS, KeyLimits
from http_api.doors import is_loopback


class OpenServiceError(Exception):
    """The service would listen beyond this machine with no key configured."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose limits a request counts against: a key's name, or an address where no keys are configured."""

    name: str
    limits: KeyLimits = NO_LIMITS
    key_digest: str = field(default="", repr=False)


def refuse_open_service(host: str, key_file: Path | None) -> None:
    """Raises OpenServiceError where anyone on the network could use the service without a key."""
    if key_file is None and not is_loopback(host):
        raise OpenServiceError(
            f"no keys are configured and {host!r} is reachable from other machines: make one "
            "(`pd-cloud keys add NAME --file keys.toml`) and give --key-file, or listen on 127.0.0.1"
        )
