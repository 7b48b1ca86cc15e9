"""One server: requests over kept connections, its health and its load."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from cloud_service.upstream.dialects import Gauges
from cloud_service.upstream.stream import EventReader, Piece, StreamError, piece_of

logger = logging.getLogger(__name__)

#: Seconds to connect, and for an answer about health or load.
CONNECT_TIMEOUT = 5.0


class BusyError(Exception):
    """The server takes no more now (429, 503): another one may."""

    def __init__(self, message: str, retry_after_s: float | None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class BrokenError(Exception):
    """The server is away, or failed at this: another one may not."""


class BadRequestError(Exception):
    """The server refuses what was asked (4xx): every other one would."""


@dataclass(frozen=True, slots=True)
class Load:
    """What the server says of itself; None where it says nothing."""

    running: int | None = None
    waiting: int | None = None
    kv_share: float | None = None


class Server:
    """Belongs to one event loop."""

    def __init__(self, url: str, key: str | None, patience: float) -> None:
        """`patience`: seconds that it may say nothing in the middle of something."""
        self.url = url.rstrip("/").removesuffix("/v1")
        self.in_flight = 0
        self.load = Load()
        #: Nothing is known to be wrong with it.
        self.healthy = False
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        timeout = httpx.Timeout(patience, connect=CONNECT_TIMEOUT, pool=CONNECT_TIMEOUT)
        # Streams are long: how many there may be is counted elsewhere, by generations.
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
        # To read the system's certificates takes a moment, and only https has a use for them.
        secure = self.url.startswith("https:")
        self._http = httpx.AsyncClient(
            base_url=self.url, headers=headers, timeout=timeout, limits=limits, verify=secure
        )

    async def close(self) -> None:
        await self._http.aclose()

    async def models(self) -> list[dict[str, Any]]:
        """`/v1/models`. Raises BrokenError, BusyError, BadRequestError."""
        response = await self._answer("GET", "/v1/models")
        try:
            return list(response.json()["data"])
        except (ValueError, KeyError, TypeError):
            raise BrokenError(
                f"{self.url}/v1/models is no list of models: is this an OpenAI-compatible server?"
            ) from None

    async def complete(self, body: dict[str, Any]) -> dict[str, Any]:
        """One completion, whole. Raises BrokenError, BusyError, BadRequestError."""
        try:
            return dict((await self._answer("POST", "/v1/completions", body)).json())
        except ValueError:
            raise BrokenError(f"{self.url} answered with something other than JSON") from None

    async def check(self, gauges: Gauges | None) -> bool:
        """Look at its health, and at its load where it shows that."""
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                response = await self._http.get("/health")
                if response.status_code == httpx.codes.NOT_FOUND:
                    response = await self._http.get("/v1/models")
                healthy = response.is_success
                self.load = await self._read_load(gauges) if healthy and gauges is not None else Load()
        except (httpx.HTTPError, TimeoutError):
            healthy = False
        if healthy != self.healthy:
            logger.log(
                logging.INFO if healthy else logging.WARNING, "upstream %s is %s", self.url, "up" if healthy else "down"
            )
        self.healthy = healthy
        return healthy

    async def stream(self, body: dict[str, Any], headers: dict[str, str]) -> AsyncGenerator[Piece, None]:
        """The pieces of one completion. Closing the iterator closes the connection, which is how the server learns
        that nobody wants the rest. Raises BrokenError, BusyError, BadRequestError."""
        async with contextlib.aclosing(self._events(body, headers)) as events:
            async for data in events:
                try:
                    piece = piece_of(data)
                except StreamError as error:
                    raise BrokenError(f"{self.url}: {error}") from None
                if piece is None:
                    return
                yield piece
        raise BrokenError(f"{self.url} ended a stream before its end")

    async def _events(self, body: dict[str, Any], headers: dict[str, str]) -> AsyncGenerator[bytes, None]:
        try:
            async with self._open(body, headers) as response:
                reader = EventReader()
                async for data in response.aiter_bytes():
                    for event in reader.push(data):
                        yield event
        except httpx.HTTPError as error:
            raise BrokenError(f"{self.url}: {_text(error)}") from None

    @contextlib.asynccontextmanager
    async def _open(self, body: dict[str, Any], headers: dict[str, str]) -> AsyncIterator[httpx.Response]:
        """A response whose head has come and is good."""
        request = self._http.build_request("POST", "/v1/completions", json={**body, "stream": True}, headers=headers)
        try:
            response = await self._http.send(request, stream=True)
        except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError):
            # A kept connection may be closed by the server while the request is on its way: nothing was begun.
            response = await self._http.send(request, stream=True)
        try:
            if not response.is_success:
                await response.aread()
                self._refuse(response)
            yield response
        finally:
            await response.aclose()

    async def _answer(self, method: str, path: str, body: dict[str, Any] | None = None) -> httpx.Response:
        try:
            response = await self._http.request(method, path, json=body)
        except httpx.HTTPError as error:
            raise BrokenError(f"{self.url}: {_text(error)}") from None
        if not response.is_success:
            self._refuse(response)
        return response

    def _refuse(self, response: httpx.Response) -> None:
        """Raises what the status of a response that is no success says."""
        status = response.status_code
        if status in (httpx.codes.TOO_MANY_REQUESTS, httpx.codes.SERVICE_UNAVAILABLE):
            raise BusyError(f"{self.url} is busy ({status})", _retry_after(response))
        if status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            raise BrokenError(f"{self.url} refuses the key ({status}): set upstream_key")
        if status == httpx.codes.NOT_FOUND or status >= httpx.codes.INTERNAL_SERVER_ERROR:
            raise BrokenError(f"{self.url} failed ({status})")
        # Its text is not passed on: it may quote the prompt.
        raise BadRequestError(f"{self.url} refused the request ({status})")

    async def _read_load(self, gauges: Gauges) -> Load:
        response = await self._http.get("/metrics")
        if not response.is_success:
            return Load()
        values: dict[str, float] = {}
        try:
            for family in text_string_to_metric_families(response.text):
                for sample in family.samples:
                    values[sample.name] = values.get(sample.name, 0.0) + sample.value
        except ValueError:
            return Load()
        running, waiting = values.get(gauges.running), values.get(gauges.waiting)
        kv = next((values[name] for name in gauges.kv_share if name in values), None)
        return Load(None if running is None else int(running), None if waiting is None else int(waiting), kv)


def _retry_after(response: httpx.Response) -> float | None:
    try:
        return max(0.0, float(response.headers["retry-after"]))
    except (KeyError, ValueError):  # it may also be a date, which nobody sends
        return None


def _text(error: httpx.HTTPError) -> str:
    return str(error) or type(error).__name__
