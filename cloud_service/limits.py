"""What each caller may use: generations at once, generations and tokens in a minute."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from limits import RateLimitItemPerMinute
from limits.aio.storage import RedisStorage, SlidingWindowCounterSupport, Storage
from limits.aio.storage.redis.redispy import RedispyBridge
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from limits.errors import ConfigurationError
from limits.storage import storage_from_string

from cloud_service.auth import Caller
from cloud_service.keys.records import KeyLimits

logger = logging.getLogger(__name__)

#: How long a store that is shared over the network may take for an answer, in seconds.
STORE_TIMEOUT = 0.5

_WINDOW = 60.0


class LimitStoreError(Exception):
    """The store for rate limits that the settings name cannot be used."""


@dataclass(frozen=True, slots=True)
class LimitReached:
    """Why a caller may not start another generation now."""

    message: str
    #: When it may; None where that depends on when one of its own generations ends, or it never may.
    retry_after_s: float | None


def open_store(address: str) -> Storage:
    """Where rates are counted: `memory://`, or `redis://…`, which several instances share. Raises LimitStoreError."""
    scheme = address.partition("://")[0]
    options = {} if scheme == "memory" else {"implementation": "redispy"}
    try:
        if scheme not in ("memory", "redis", "rediss", "redis+sentinel", "redis+cluster"):
            raise LimitStoreError(f"{scheme}:// is no store for rate limits: expected memory:// or redis://HOST:PORT")
        return cast("Storage", storage_from_string(f"async+{address}", **options))
    except (ConfigurationError, ImportError, ValueError) as error:
        # The address may hold a password, and so may the library's text.
        raise LimitStoreError(
            f"the {scheme} store for rate limits is not usable ({type(error).__name__}): "
            "expected redis://HOST:PORT, and `pip install 'pd-device[redis]'`"
        ) from None


class CallerLimits:
    """Belongs to one event loop. Rates are counted in the store, by a sliding window; generations at once are counted
    here, for this process alone, which knows for certain when each one ends."""

    def __init__(self, defaults: KeyLimits, store: Storage, on_store_error: Callable[[], None] = lambda: None) -> None:
        """`defaults` hold where a caller's key says nothing."""
        self._defaults = defaults
        self._store = store
        self._windows = SlidingWindowCounterRateLimiter(store)
        self._on_store_error = on_store_error
        self._running: Counter[str] = Counter()

    def of(self, caller: Caller) -> KeyLimits:
        """What holds for `caller`."""
        return caller.limits.over(self._defaults)

    async def admit(self, caller: Caller, tokens: int) -> LimitReached | None:
        """Count one more generation of `caller`, to be ended by `release`, and the tokens that it may use; or say why
        not. A cancelled call has counted no generation."""
        own = self.of(caller)
        reached = self._too_many(caller, own) or await self._rates(caller, own, tokens)
        # Others may have come in while the store was asked.
        reached = reached or self._too_many(caller, own)
        if reached is None:
            self._running[caller.name] += 1
        return reached

    async def spend(self, caller: Caller, tokens: int) -> LimitReached | None:
        """Count tokens that a running generation may use beyond what it was admitted with; or say why not."""
        per_minute = self.of(caller).tokens_per_minute
        if per_minute is None or tokens <= 0:
            return None
        return await self._hit(caller, "tokens", per_minute, tokens)

    def release(self, caller: Caller) -> None:
        """One generation that was admitted has ended."""
        self._running[caller.name] -= 1
        if self._running[caller.name] <= 0:
            del self._running[caller.name]

    def running(self, caller: Caller) -> int:
        return self._running[caller.name]

    async def close(self) -> None:
        """Give the store's connections back."""
        if isinstance(self._store, RedisStorage) and isinstance(self._store.bridge, RedispyBridge):
            await self._store.bridge.storage.aclose()

    def _too_many(self, caller: Caller, own: KeyLimits) -> LimitReached | None:
        running = self._running[caller.name]
        if own.max_generations is None or running < own.max_generations:
            return None
        return LimitReached(f"{running} generations are running, the most allowed at once", None)

    async def _rates(self, caller: Caller, own: KeyLimits, tokens: int) -> LimitReached | None:
        # Requests are only looked at before the tokens are taken: what is refused for one costs nothing of the other.
        if own.requests_per_minute is not None:
            reached = await self._look(caller, "requests", own.requests_per_minute, 1)
            if reached is not None:
                return reached
        if own.tokens_per_minute is not None:
            reached = await self._hit(caller, "tokens", own.tokens_per_minute, tokens)
            if reached is not None:
                return reached
        if own.requests_per_minute is not None:
            return await self._hit(caller, "requests", own.requests_per_minute, 1)
        return None

    async def _hit(self, caller: Caller, what: str, per_minute: int, cost: int) -> LimitReached | None:
        try:
            async with asyncio.timeout(STORE_TIMEOUT):
                if await self._windows.hit(RateLimitItemPerMinute(per_minute), what, caller.name, cost=cost):
                    return None
        except Exception as error:
            self._without_store(error)
            return None
        return await self._look(caller, what, per_minute, cost) or LimitReached(_text(what, per_minute, cost), 0.0)

    async def _look(self, caller: Caller, what: str, per_minute: int, cost: int) -> LimitReached | None:
        if cost > per_minute:
            return LimitReached(
                f"{cost} {what} were asked for at once; at most {per_minute} a minute are allowed", None
            )
        item = RateLimitItemPerMinute(per_minute)
        try:
            async with asyncio.timeout(STORE_TIMEOUT):
                window = await cast("SlidingWindowCounterSupport", self._store).get_sliding_window(
                    item.key_for(what, caller.name), item.get_expiry()
                )
        except Exception as error:
            self._without_store(error)
            return None
        wait = wait_for(cost, per_minute, *window)
        return None if wait == 0 else LimitReached(_text(what, per_minute, cost), wait)

    def _without_store(self, error: Exception) -> None:
        """A store that is away must not take the service with it: callers go uncounted meanwhile."""
        self._on_store_error()
        logger.warning("rate limits are not counted, their store failed: %s", type(error).__name__)


def wait_for(cost: int, limit: int, previous: int, previous_left: float, current: int, current_left: float) -> float:
    """Seconds until `cost` more fit under `limit` in a minute, if nothing else comes; 0 where they do now. Pure.

    A sliding window counter takes the past minute's count as what this minute's clock has counted and the share of
    the one before that the past minute still covers. `previous_left`: until the one before is out of it;
    `current_left`: a minute more than until the current one becomes the one before.
    """
    room = limit - cost
    if previous * previous_left / _WINDOW + current <= room:
        return 0.0
    if current <= room:
        return previous_left - _WINDOW * (room - current) / previous
    return max(0.0, current_left - _WINDOW) + _WINDOW * (1 - room / current)


def _text(what: str, per_minute: int, cost: int) -> str:
    return f"{cost} more {what} would be more than {per_minute} in a minute"
