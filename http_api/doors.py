"""Whom a server lets in: addresses, and the web pages that may use it."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from http_api.openai.errors import ApiError

#: In a list of origins or of hosts, lets any in.
ANY = "*"


def is_loopback(host: str) -> bool:
    """Whether whoever listens on `host` can be reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class OriginGate:
    """ASGI middleware: a web page is let in only if its origin is on the list.

    Browsers put the page's origin (RFC 6454) into every WebSocket upgrade and every POST, and let any page open a
    WebSocket to any address, this machine's loopback included, where a server without keys may listen. Programs
    other than browsers send no origin and pass.
    """

    def __init__(self, app: ASGIApp, origins: Collection[str]) -> None:
        self._app = app
        self._origins = frozenset(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        origin = Headers(scope=scope).get("origin") if scope["type"] in ("http", "websocket") else None
        if origin is None or ANY in self._origins or origin in self._origins:
            await self._app(scope, receive, send)
            return
        refusal = ApiError(
            403, "pages of this origin are not let in: see the setting `origins`", code="origin_not_allowed"
        ).response()
        if scope["type"] == "websocket":
            await WebSocket(scope, receive, send).send_denial_response(refusal)
        else:
            await refusal(scope, receive, send)


class HostGate:
    """ASGI middleware for HTTP: a request must name this server by an address, as localhost, or by a name on the list.

    Against DNS rebinding: a page of `evil.example`, whose name server answers a second time with 127.0.0.1, is of the
    same origin as the server then, but the browser still sends `Host: evil.example`. Nobody can bend an address.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str]) -> None:
        self._app = app
        self._hosts = frozenset(host.lower() for host in hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not self._lets_in(Headers(scope=scope).getlist("host")):
            refusal = ApiError(
                403, "this server is not known by the name in Host: see the setting `hosts`", code="host_not_allowed"
            )
            await refusal.response()(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _lets_in(self, given: list[str]) -> bool:
        if ANY in self._hosts or not given:  # HTTP/1.0, which no browser speaks
            return True
        if len(given) > 1:
            return False
        name = _without_port(given[0]).lower().rstrip(".")
        if name in self._hosts or name == "localhost" or name.endswith(".localhost"):
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]
