"""`hello` and `welcome`: what both sides need to know before the first generation."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

from cloud_service.auth import Caller
from cloud_service.desk import Desk
from cloud_service.sessions.link import Closing, Link
from cloud_service.settings import Settings
from wire_protocol.close_codes import CloseCode
from wire_protocol.errors import DecodeError, VersionError
from wire_protocol.messages import Error, Hello, Limits, Welcome
from wire_protocol.versions import negotiate


def _server() -> str:
    try:
        return f"pd-cloud {version('pd-device')}"
    except PackageNotFoundError:  # run from a checkout
        return "pd-cloud"


@dataclass(frozen=True, slots=True)
class Agreement:
    """What a connection has agreed on."""

    client: str
    travel: Literal["ids", "text"]


class RefusedError(Exception):
    """The connection is to be closed, and how."""

    def __init__(self, closing: Closing) -> None:
        super().__init__(closing.code.name)
        self.closing = closing


async def shake_hands(link: Link, desk: Desk, settings: Settings, caller: Caller) -> Agreement:
    """Wait for `hello` and answer it. Raises RefusedError, ClientGoneError."""
    try:
        async with asyncio.timeout(settings.hello_timeout_ms / 1000):
            hello = await link.receive()
    except TimeoutError:
        raise _refusal(CloseCode.BAD_HELLO, "bad_message", "no `hello` came in time") from None
    except DecodeError as error:
        raise _refusal(error.close_code, "bad_message", str(error)) from None
    if not isinstance(hello, Hello):
        raise _refusal(CloseCode.BAD_HELLO, "bad_message", "expected `hello` as the first message")
    try:
        spoken = negotiate(hello.version)
    except VersionError as error:
        raise _refusal(error.close_code, "version", str(error)) from None
    if hello.model not in ("", desk.model_name):
        text = f"{hello.model[:100]!r} is not served here; {desk.model_name!r} is"
        raise _refusal(CloseCode.MODEL, "model", text)
    info = desk.info
    agree = (hello.tokenizer, hello.template) == (info.tokenizer_fingerprint, info.template_fingerprint)
    travel: Literal["ids", "text"] = "ids" if agree and desk.backend.gives_ids else "text"
    bounds = desk.bounds_for(caller)
    limits = Limits(
        max_prompt_tokens=bounds.max_prompt_tokens,
        max_grant=bounds.max_grant,
        max_generations=desk.limits.of(caller).max_generations or settings.max_generations,
        max_message_bytes=settings.max_message_bytes,
    )
    link.send(
        Welcome(
            version=spoken,
            server=_server(),
            model=desk.model_name,
            tokenizer=info.tokenizer_fingerprint,
            template=info.template_fingerprint,
            limits=limits,
            travel=travel,
            offers=_offers(spoken, desk),
        )
    )
    return Agreement(hello.client, travel)


def _offers(spoken: int, desk: Desk) -> tuple[Literal["constraint", "reread"], ...]:
    found: list[Literal["constraint", "reread"]] = []
    if spoken >= 2 and desk.backend.holds_constraints:
        found.append("constraint")
    if spoken >= 3 and desk.refinery.stages:
        found.append("reread")
    return tuple(found)


def _refusal(code: CloseCode, kind: Literal["bad_message", "version", "model"], message: str) -> RefusedError:
    return RefusedError(Closing(code, Error("", kind, message)))
