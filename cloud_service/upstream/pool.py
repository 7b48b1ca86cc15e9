"""Several servers with the same model: which one is asked next."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from cloud_service.upstream.offer import Offer, discover
from cloud_service.upstream.prompts import PromptText
from cloud_service.upstream.server import BadRequestError, BrokenError, BusyError, Server

logger = logging.getLogger(__name__)

#: Seconds between two looks at a server's health and load.
CHECK_EVERY = 2.0


@dataclass(slots=True)
class Member:
    server: Server
    #: None until it was asked.
    offer: Offer | None = None


class Pool:
    """Belongs to one event loop."""

    def __init__(self, servers: Iterable[Server], prompts: PromptText, model: str | None) -> None:
        self._members = [Member(server) for server in servers]
        self._prompts = prompts
        self._model = model
        self._watch: asyncio.Task[None] | None = None

    @property
    def offers(self) -> tuple[Offer, ...]:
        """Of the servers that were asked so far."""
        return tuple(member.offer for member in self._members if member.offer is not None)

    @property
    def size(self) -> int:
        return len(self._members)

    @property
    def servers(self) -> tuple[Server, ...]:
        return tuple(member.server for member in self._members)

    async def open(self) -> None:
        """Wait until at least one server is there; the others join when they are. From then on, all are watched.
        Raises BadRequestError and BrokenError where one is there and cannot be used."""
        while not self.offers:
            await asyncio.gather(*(member.server.check(None) for member in self._members))
            for member in self._members:
                if member.server.healthy:
                    with contextlib.suppress(BusyError):
                        await self._ask(member)
            if not self.offers:
                logger.info("waiting for an upstream: %s", ", ".join(member.server.url for member in self._members))
                await asyncio.sleep(CHECK_EVERY)
        self._watch = asyncio.create_task(self._keep_watching())

    async def close(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watch
        await asyncio.gather(*(member.server.close() for member in self._members))

    def choose(self, tried: Collection[Server]) -> tuple[Server, Offer] | None:
        """The one that is likely to begin soonest, of those that are up and were not tried."""
        able = [
            (member.server, member.offer)
            for member in self._members
            if member.offer is not None and member.server.healthy and member.server not in tried
        ]
        # What a server says of its queue is some seconds old; what was sent from here is known now.
        return min(able, key=lambda one: (one[0].load.waiting or 0, one[0].in_flight), default=None)

    def ready(self) -> bool:
        return self.choose(()) is not None

    async def _keep_watching(self) -> None:
        while True:
            await asyncio.sleep(CHECK_EVERY)
            await asyncio.gather(*map(self._look_at, self._members))

    async def _look_at(self, member: Member) -> None:
        try:
            healthy = await member.server.check(None if member.offer is None else member.offer.dialect.gauges)
            if healthy and member.offer is None:
                await self._ask(member)
        except (BrokenError, BusyError, BadRequestError) as error:
            logger.warning("upstream %s cannot be used: %s", member.server.url, error)

    async def _ask(self, member: Member) -> None:
        offer = await discover(member.server, self._prompts, self._model)
        others = self.offers
        if others and any((offer.ids_in, offer.ids_out) != (other.ids_in, other.ids_out) for other in others):
            # What travels to devices is agreed on once, when they connect.
            raise BrokenError(f"{member.server.url} and the other upstreams do not agree on whether token ids travel")
        member.offer = offer
        url, name = member.server.url, offer.dialect.name
        logger.info("upstream %s is %s and serves %s", url, name, offer.model)
        for lack in offer.lacks:
            logger.info("upstream %s does not offer %s", url, lack)
