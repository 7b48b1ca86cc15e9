"""`/v1/pd`: who may open a device connection, and what becomes of it."""

from __future__ import annotations

import itertools
import logging

from fastapi import APIRouter
from starlette.responses import JSONResponse
from starlette.websockets import WebSocket

from cloud_service.auth import Caller
from cloud_service.desk import Desk
from cloud_service.server import direct_of
from cloud_service.service import Service, Serving
from cloud_service.sessions.handshake import RefusedError, shake_hands
from cloud_service.sessions.link import ClientGoneError, Closing, Link
from cloud_service.sessions.session import Session
from wire_protocol.close_codes import CloseCode
from wire_protocol.codec import SUBPROTOCOLS, WEBSOCKET_PATH, choose_subprotocol, codec_for

logger = logging.getLogger(__name__)


def device_router(service: Service) -> APIRouter:
    """The device endpoint of `service`."""
    router = APIRouter()
    numbers = itertools.count(1)

    @router.websocket(WEBSOCKET_PATH)
    async def device(socket: WebSocket) -> None:
        address = socket.client.host if socket.client else "unknown"
        caller = service.keys.identify(socket.headers.get("authorization"), address)
        subprotocol = choose_subprotocol(socket.scope["subprotocols"])
        match caller, subprotocol, service.state:
            case None, _, _:
                await _deny(socket, 401, "the bearer key is missing or wrong", {"www-authenticate": "Bearer"})
            case _, None, _:
                await _deny(socket, 400, f"offer one of the subprotocols {', '.join(SUBPROTOCOLS)}", {})
            case Caller(), str(), Serving(desk):
                await socket.accept(subprotocol)
                link = Link(
                    socket,
                    codec_for(subprotocol),
                    capacity=service.settings.send_queue_messages,
                    patience=service.settings.send_timeout_ms / 1000,
                    direct=direct_of(socket),
                )
                await _converse(link, service, desk, caller, f"c{next(numbers)}")
            case _:
                await _deny(socket, 503, "not serving: see /ready", {"retry-after": "1"})

    return router


async def _converse(link: Link, service: Service, desk: Desk, caller: Caller, name: str) -> None:
    facts = {"connection": name, "caller": caller.name}
    try:
        agreement = await shake_hands(link, desk, service.settings, caller)
    except RefusedError as refused:
        logger.info("connection refused", extra={**facts, "code": str(refused)})
        await link.close(refused.closing)
        return
    except ClientGoneError:
        await link.discard()
        return
    if not isinstance(service.state, Serving):
        await link.close(Closing(CloseCode.GOING_AWAY))
        return
    session = Session(link, agreement, service, desk, caller, name=name)
    logger.info("connected", extra={**facts, "client": agreement.client})
    service.connections.add(session)
    service.metrics.connections.inc()
    try:
        await session.run()
    finally:
        service.connections.discard(session)
        service.metrics.connections.dec()
        logger.info("disconnected", extra=facts)


async def _deny(socket: WebSocket, status: int, message: str, headers: dict[str, str]) -> None:
    await socket.send_denial_response(JSONResponse({"error": message}, status, headers))
