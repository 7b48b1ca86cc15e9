"""The messages of `pd.v1`, one frozen type each, tagged by `type`. No I/O.

One WebSocket carries many generations; every message but `hello`, `welcome` and `draining` names its generation.
Every `generate` ends in exactly one of `rejected`, `finished`, `error`, whatever happens. Indices and counts are in
output tokens from 0, spans are half-open, times are in milliseconds.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from msgspec import Meta, Struct

#: The version that this package speaks; `hello` and `welcome` carry it.
PROTOCOL_VERSION = 1

MAX_PROMPT_TOKENS = 1_000_000
MAX_OUTPUT_TOKENS = 100_000
MAX_TEXT = 8_000_000

GenerationId: TypeAlias = Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_.:-]+$")]
TokenId: TypeAlias = Annotated[int, Meta(ge=0, lt=2**31)]
Count: TypeAlias = Annotated[int, Meta(ge=0, lt=2**31)]
Milliseconds: TypeAlias = Annotated[float, Meta(ge=0, le=1e9)]
Name: TypeAlias = Annotated[str, Meta(max_length=256)]
Fingerprint: TypeAlias = Annotated[str, Meta(max_length=128)]
Text: TypeAlias = Annotated[str, Meta(max_length=MAX_TEXT)]
PromptTokens: TypeAlias = Annotated[tuple[TokenId, ...], Meta(min_length=1, max_length=MAX_PROMPT_TOKENS)]
OutputTokens: TypeAlias = Annotated[tuple[TokenId, ...], Meta(max_length=MAX_OUTPUT_TOKENS)]
Span: TypeAlias = tuple[Count, Count]
Spans: TypeAlias = Annotated[tuple[Span, ...], Meta(max_length=65_536)]


class Part(Struct, frozen=True, forbid_unknown_fields=True):
    """A value that travels inside a message."""


class ChatMessage(Part, frozen=True):
    role: Literal["system", "user", "assistant"]
    content: Text


class Sampling(Part, frozen=True):
    """As in `model_runtime.sampling`; the noise of output token i depends on (seed, i) only."""

    temperature: Annotated[float, Meta(ge=0, le=100)] = 0.0
    top_k: Count = 0
    top_p: Annotated[float, Meta(gt=0, le=1)] = 1.0
    min_p: Annotated[float, Meta(ge=0, le=1)] = 0.0
    repetition_penalty: Annotated[float, Meta(gt=0, le=100)] = 1.0
    presence_penalty: Annotated[float, Meta(ge=-100, le=100)] = 0.0
    frequency_penalty: Annotated[float, Meta(ge=-100, le=100)] = 0.0
    seed: Annotated[int, Meta(ge=0, le=2**63 - 1)] = 0


class Refine(Part, frozen=True):
    """Ask which parts of the prompt matter. Spans are in the prompt's own unit (tokens, or characters of text)."""

    keep_ratio: Annotated[float, Meta(gt=0, le=1)]
    protected: Spans = ()


class Usage(Part, frozen=True):
    """Counts in tokens, times in ms. `cached_tokens` of the prompt came from a KV cache."""

    prompt_tokens: Count = 0
    cached_tokens: Count = 0
    output_tokens: Count = 0
    queue_ms: Milliseconds = 0.0
    prefill_ms: Milliseconds = 0.0
    decode_ms: Milliseconds = 0.0


class Limits(Part, frozen=True):
    max_prompt_tokens: Count
    max_grant: Count
    max_generations: Count
    max_message_bytes: Count


# --- device → cloud ---------------------------------------------------------------------------------------------


class Hello(Struct, frozen=True, forbid_unknown_fields=True, tag="hello"):
    """The first message on a connection."""

    version: Annotated[int, Meta(ge=1, le=65_535)]
    client: Name
    #: The model wanted; empty takes the service's default.
    model: Name = ""
    #: Empty where the device has no engine (in-cloud modes): text travels.
    tokenizer: Fingerprint = ""
    template: Fingerprint = ""


class Generate(Struct, frozen=True, forbid_unknown_fields=True, tag="generate"):
    """Prefill the prompt and give up to `grant` tokens from output index `len(output)` on.

    Exactly one of `prompt` (token ids, where fingerprints agree) and `messages`. To continue an answer, `output` holds
    its token ids so far, or `output_text` its text where text travels; the service goes on from there.
    """

    id: GenerationId
    grant: Annotated[int, Meta(ge=0, le=MAX_OUTPUT_TOKENS)]
    prompt: PromptTokens | None = None
    messages: Annotated[tuple[ChatMessage, ...], Meta(min_length=1, max_length=4_096)] | None = None
    sampling: Sampling = Sampling()
    refine: Refine | None = None
    output: OutputTokens = ()
    output_text: Text = ""
    stop: Annotated[tuple[Annotated[str, Meta(min_length=1, max_length=256)], ...], Meta(max_length=16)] = ()
    #: Milliseconds from arrival in which a first token is still of use; None for the service's own.
    deadline_ms: Milliseconds | None = None


class Progress(Struct, frozen=True, forbid_unknown_fields=True, tag="progress"):
    """Where the device stands, so that the service can order its work by slack."""

    id: GenerationId
    received: Count
    shown: Count
    #: What the device shows, in ms for a token; 0 where it does not pace.
    pace_ms: Milliseconds
    #: When the device expects to need the cloud no more; None while it cannot tell.
    ready_in_ms: Milliseconds | None = None


class Extend(Struct, frozen=True, forbid_unknown_fields=True, tag="extend"):
    """Raise the grant of a running or just finished generation to `grant` output tokens in all (from index 0 of
    this `generate`). A smaller value than now changes nothing."""

    id: GenerationId
    grant: Annotated[int, Meta(ge=0, le=MAX_OUTPUT_TOKENS)]


class Stop(Struct, frozen=True, forbid_unknown_fields=True, tag="stop"):
    """The device has taken over, or the user cancelled. Answered by `finished` with reason `stopped`."""

    id: GenerationId
    reason: Literal["taken_over", "cancelled"]


# --- cloud → device ---------------------------------------------------------------------------------------------


class Welcome(Struct, frozen=True, forbid_unknown_fields=True, tag="welcome"):
    """The answer to `hello`."""

    version: Annotated[int, Meta(ge=1, le=65_535)]
    server: Name
    model: Name
    tokenizer: Fingerprint
    template: Fingerprint
    limits: Limits
    #: `ids` where the tokenizer fingerprints agree, else `text`.
    travel: Literal["ids", "text"]


class Accepted(Struct, frozen=True, forbid_unknown_fields=True, tag="accepted"):
    """Sent at once for a `generate` that will be served."""

    id: GenerationId
    prompt_tokens: Count
    cached_tokens: Count = 0
    queue_ms: Milliseconds = 0.0


class Refinement(Struct, frozen=True, forbid_unknown_fields=True, tag="refinement"):
    """Spans of the prompt to keep. A later `stage` replaces an earlier one."""

    id: GenerationId
    stage: Annotated[int, Meta(ge=1, le=16)]
    final: bool
    unit: Literal["tokens", "characters"]
    keep: Spans


class Tokens(Struct, frozen=True, forbid_unknown_fields=True, tag="tokens"):
    """Output tokens `first` … `first + count - 1`.

    Where ids travel, `ids` holds them. Where text travels, `data` holds the bytes these tokens add to the text (a
    character may be split between two messages) and `count` says how many tokens they are.
    """

    id: GenerationId
    first: Count
    ids: OutputTokens = ()
    count: Count = 0
    data: Annotated[bytes, Meta(max_length=MAX_TEXT)] = b""


class Finished(Struct, frozen=True, forbid_unknown_fields=True, tag="finished"):
    """Terminal. `grant`: the grant is used up and the answer goes on; `eos` and `stop`: the answer ends here;
    `stopped`: the device said `stop`; `context`: the context is full."""

    id: GenerationId
    reason: Literal["grant", "eos", "stop", "stopped", "context"]
    usage: Usage = Usage()


class Rejected(Struct, frozen=True, forbid_unknown_fields=True, tag="rejected"):
    """Terminal: not served, nothing was generated."""

    id: GenerationId
    reason: Literal["busy", "deadline", "rate_limit", "draining", "too_long", "unsupported"]
    message: Annotated[str, Meta(max_length=2_000)] = ""
    retry_after_ms: Milliseconds | None = None


class Error(Struct, frozen=True, forbid_unknown_fields=True, tag="error"):
    """Terminal for a generation; with an empty `id`, about the connection, which is then closed."""

    id: Annotated[str, Meta(max_length=64)]
    code: Literal[
        "bad_message", "bad_request", "unknown_generation", "version", "model", "engine", "internal", "slow_reader"
    ]
    message: Annotated[str, Meta(max_length=2_000)]
    retriable: bool = False


class Draining(Struct, frozen=True, forbid_unknown_fields=True, tag="draining"):
    """The service goes away in `in_ms`: no new generation is accepted; finish locally."""

    in_ms: Milliseconds


DeviceMessage: TypeAlias = Hello | Generate | Progress | Extend | Stop
CloudMessage: TypeAlias = Welcome | Accepted | Refinement | Tokens | Finished | Rejected | Error | Draining
