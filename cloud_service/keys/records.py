"""What a key is once its secret is forgotten, and what its holder may do."""

from __future__ import annotations

import dataclasses
import hashlib
import secrets
from dataclasses import dataclass
from datetime import date
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

#: Tells scanners of leaked secrets, and people, what it is.
PREFIX = "pd-"

_AtLeastOne = Annotated[int, Field(ge=1)]


@dataclass(frozen=True, slots=True)
class KeyLimits:
    """What one caller may use; None leaves it to the service's setting of the same name."""

    #: Generations open at a time.
    max_generations: int | None = None
    #: Generations started in any minute.
    requests_per_minute: int | None = None
    #: Prompt tokens and granted output tokens in any minute.
    tokens_per_minute: int | None = None
    #: Output tokens of one generation.
    max_grant: int | None = None

    def over(self, defaults: KeyLimits) -> KeyLimits:
        """These, and `defaults` where these say nothing."""
        own = {name: value for name, value in dataclasses.asdict(self).items() if value is not None}
        return dataclasses.replace(defaults, **own)


#: Of a caller who has no key, or a key that says nothing.
NO_LIMITS = KeyLimits()


class KeyRecord(BaseModel):
    """One `[keys.NAME]` table of a key file. The key cannot be had back from it.

    A key has 256 random bits, so that one SHA-256 keeps it: slow hashes are for secrets that people choose, which
    these never are.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    created: date
    max_generations: _AtLeastOne | None = None
    requests_per_minute: _AtLeastOne | None = None
    tokens_per_minute: _AtLeastOne | None = None
    max_grant: _AtLeastOne | None = None

    @property
    def limits(self) -> KeyLimits:
        return KeyLimits(self.max_generations, self.requests_per_minute, self.tokens_per_minute, self.max_grant)


def digest(key: str) -> str:
    """What is kept of a key."""
    return hashlib.sha256(key.encode(errors="surrogateescape")).hexdigest()


def new_key() -> str:
    """A random key."""
    return PREFIX + secrets.token_urlsafe(32)
