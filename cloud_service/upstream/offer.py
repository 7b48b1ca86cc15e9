"""What a server offers, found out by asking it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from cloud_service.upstream.dialects import Dialect, dialect_of
from cloud_service.upstream.prompts import PromptText
from cloud_service.upstream.server import BadRequestError, BrokenError, Server

# Any text that needs no more than a token or two.
_PROBE = "Hello"


@dataclass(frozen=True, slots=True)
class Offer:
    """What one server offers."""

    dialect: Dialect
    #: Its name for the model.
    model: str
    #: None where it does not say.
    context_length: int | None
    #: Prompts may be token ids; else they are text, which it tokenizes again.
    ids_in: bool
    #: Output comes as token ids; else as text alone.
    ids_out: bool
    #: It says at the end how many tokens it read.
    usage: bool
    #: Requests can be ordered.
    priority: bool
    #: It puts a beginning-of-sequence token before a prompt that is text.
    adds_bos: bool = False

    @property
    def lacks(self) -> tuple[str, ...]:
        """What is done without, and what follows from that."""
        missing = {
            "prompts as token ids (a prompt with the text of a special token is refused)": self.ids_in,
            "output as token ids (devices get text, and tokenize it at the hand-over)": self.ids_out,
            "usage (cached tokens are not known)": self.usage,
            "priority (requests are served in the order that they come)": self.priority,
            "load in /metrics (only what is sent from here is counted)": self.dialect.gauges is not None,
            "its context length (context_length must be set)": self.context_length is not None,
            "the noise of our sampling (a hand-over of a sampled answer draws anew)": False,
            **{f"`{name}` (requests that ask for it are refused)": name in self.dialect.beyond for name in _BEYOND},
        }
        return tuple(text for text, offered in missing.items() if not offered)


_BEYOND = ("top_k", "min_p", "repetition_penalty")


async def discover(server: Server, prompts: PromptText, wanted_model: str | None) -> Offer:
    """Ask. Raises BrokenError, also where the server has another model; BusyError; BadRequestError."""
    models = await server.models()
    found = next((model for model in models if wanted_model in (None, model.get("id"))), None)
    if found is None:
        names = ", ".join(repr(str(model.get("id"))) for model in models) or "none"
        raise BrokenError(f"{server.url} has no model {wanted_model!r}; it has: {names} (set upstream_model)")
    model, dialect = str(found["id"]), dialect_of(str(found.get("owned_by", "")))
    ids = prompts.tokenizer.encode(_PROBE)
    last: Exception | None = None
    for body in _probes(model, ids):
        try:
            seen = [piece async for piece in server.stream(body, {})]
        except (BadRequestError, BrokenError) as error:  # some fail where they should refuse
            last = error
            continue
        ids_in = not isinstance(body["prompt"], str)
        return Offer(
            dialect,
            model,
            _context_length(found),
            ids_in=ids_in,
            ids_out=any(piece.ids for piece in seen),
            usage=any(piece.prompt_tokens is not None for piece in seen),
            priority=dialect.priority and await _takes(server, {**body, "priority": 1}),
            adds_bos=not ids_in and await _adds_bos(server, model, len(ids)),
        )
    raise BadRequestError(f"{server.url} refuses every form of a completion, the simplest so: {last}")


def _probes(model: str, ids: list[int]) -> Iterator[dict[str, Any]]:
    """From the most that is wanted to the least that will do."""
    for prompt in (ids, _PROBE):
        for extras in ({"return_token_ids": True, "stream_options": {"include_usage": True}}, {}):
            yield {"model": model, "prompt": prompt, "max_tokens": 2, "temperature": 0.0, **extras}


async def _takes(server: Server, body: dict[str, Any]) -> bool:
    try:
        async for _ in server.stream(body, {}):
            pass
    except (BadRequestError, BrokenError):
        return False
    return True


async def _adds_bos(server: Server, model: str, tokens: int) -> bool:
    whole = await server.complete({"model": model, "prompt": _PROBE, "max_tokens": 1})
    return bool((whole.get("usage") or {}).get("prompt_tokens", tokens) == tokens + 1)


def _context_length(model: dict[str, Any]) -> int | None:
    """vLLM and SGLang say `max_model_len`, llama-server what the model was trained for."""
    found = model.get("max_model_len") or (model.get("meta") or {}).get("n_ctx_train")
    return int(found) if isinstance(found, int) and found > 0 else None
