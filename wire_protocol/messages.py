"""The messages of `pd.v1`, one frozen type each, tagged by `type`. No I/O.

One WebSocket carries many generations; every message but `hello`, `welcome` and `draining` names its generation.
Every `generate` ends in exactly one of `rejected`, `finished`, `error`, whatever happens. Spans are half-open, times
are in milliseconds. Output tokens are counted from the start of the answer: the first token of a `generate` has index
`len(output)`, which is 0 for a new answer and where text travels.

Making a message checks the rules between its fields (EncodeError); the bounds of single fields are checked when it is
encoded and again by the peer. The `#:` comments are the field descriptions of docs/protocol.md.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from msgspec import Meta, Struct

from wire_protocol.errors import EncodeError

#: The version that this package speaks; `hello` and `welcome` carry it. 2 added `generate.constraint` and
#: `welcome.offers`, 3 `refine.reread` and `refinement.reread`.
PROTOCOL_VERSION = 3

MAX_PROMPT_TOKENS = 1_000_000
MAX_OUTPUT_TOKENS = 100_000
MAX_TEXT = 8_000_000
MAX_CONSTRAINT = 500_000
MAX_GENERATION_ID = 64

# `$` alone would also match before a final newline.
GenerationId: TypeAlias = Annotated[
    str, Meta(min_length=1, max_length=MAX_GENERATION_ID, pattern=r"^[A-Za-z0-9_.:-]+$(?!\n)")
]
#: Above every token id and every count.
INTEGER_LIMIT = 2**31
TokenId: TypeAlias = Annotated[int, Meta(ge=0, lt=INTEGER_LIMIT)]
Count: TypeAlias = Annotated[int, Meta(ge=0, lt=INTEGER_LIMIT)]
Milliseconds: TypeAlias = Annotated[float, Meta(ge=0, le=1e9)]
Name: TypeAlias = Annotated[str, Meta(max_length=256)]
Fingerprint: TypeAlias = Annotated[str, Meta(max_length=128)]
Text: TypeAlias = Annotated[str, Meta(max_length=MAX_TEXT)]
PromptTokens: TypeAlias = Annotated[tuple[TokenId, ...], Meta(min_length=1, max_length=MAX_PROMPT_TOKENS)]
OutputTokens: TypeAlias = Annotated[tuple[TokenId, ...], Meta(max_length=MAX_OUTPUT_TOKENS)]
Span: TypeAlias = tuple[Count, Count]
Spans: TypeAlias = Annotated[tuple[Span, ...], Meta(max_length=65_536)]
#: What the guard said of a refinement, see `Refinement.guard`.
Guard: TypeAlias = Literal["passed", "flat", "short", "failed", "unavailable"]


class Part(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A value that travels inside a message. Fields at their default do not travel."""


class Message(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What one frame carries. Fields at their default do not travel."""


class ChatMessage(Part, frozen=True):
    """One message of a chat."""

    #: Who speaks.
    role: Literal["system", "user", "assistant"]
    #: What is said.
    content: Text


class Sampling(Part, frozen=True):
    """As in `model_runtime.sampling`; the noise of output token i depends on (seed, i) only."""

    #: 0 is greedy.
    temperature: Annotated[float, Meta(ge=0, le=100)] = 0.0
    #: Sample among this many likeliest tokens; 0 for all.
    top_k: Count = 0
    #: Sample among the likeliest tokens that together reach this probability.
    top_p: Annotated[float, Meta(gt=0, le=1)] = 1.0
    #: Leave out tokens less likely than this share of the likeliest one's probability.
    min_p: Annotated[float, Meta(ge=0, le=1)] = 0.0
    #: Divides positive and multiplies negative logits of tokens that were seen; 1 changes nothing.
    repetition_penalty: Annotated[float, Meta(ge=0.01, le=100)] = 1.0
    #: Subtracted once from the logit of a token that was generated.
    presence_penalty: Annotated[float, Meta(ge=-100, le=100)] = 0.0
    #: Subtracted from the logit of a token for each time that it was generated.
    frequency_penalty: Annotated[float, Meta(ge=-100, le=100)] = 0.0
    #: Of the noise. A JSON client in a browser keeps below 2⁵³.
    seed: Annotated[int, Meta(ge=0, le=2**63 - 1)] = 0


class Refine(Part, frozen=True):
    """Ask which parts of the prompt matter.

    Spans are in the prompt's own unit: tokens of `prompt`, or characters (Unicode code points) of the contents of
    all `messages` one after the other, with nothing between them.
    """

    #: The share of the prompt to keep at most, protected spans included.
    keep_ratio: Annotated[float, Meta(gt=0, le=1)]
    #: What stays whatever its score: template, system text, question, last window. In order, not overlapping.
    protected: Spans = ()
    #: Whether to answer from what is kept, read a second time and alone, rather than from the whole prompt; the first
    #: token comes later by that reading. Only for a service that `offers` it. Since version 3.
    reread: bool = False

    def __post_init__(self) -> None:
        _check_spans("protected", self.protected)


class Constraint(Part, frozen=True):
    """What the whole answer must look like. Only for a service that `offers` it."""

    #: `json_schema`: one JSON value of this schema. `regex`: text that matches, in the syntax of Rust's `regex`.
    #: `grammar`: text of a context-free grammar, as llguidance's Lark or llama.cpp's GBNF.
    kind: Literal["json_schema", "regex", "grammar"]
    #: The schema as JSON, the pattern, or the grammar. It holds from the answer's first token on, so what is continued
    #: counts, too.
    text: Annotated[str, Meta(max_length=MAX_CONSTRAINT)]


class Usage(Part, frozen=True):
    """Counts in tokens, times in ms."""

    #: Length of the prompt.
    prompt_tokens: Count = 0
    #: Of these, how many came from a KV cache.
    cached_tokens: Count = 0
    #: Tokens that this `generate` gave.
    output_tokens: Count = 0
    #: From arrival to the start of the prefill.
    queue_ms: Milliseconds = 0.0
    #: Engine time of the passes up to the first token: of a shared pass this generation's share, by tokens.
    prefill_ms: Milliseconds = 0.0
    #: The same for the later tokens.
    decode_ms: Milliseconds = 0.0


class Limits(Part, frozen=True):
    """What the service accepts, each at most."""

    #: Length of a prompt and the output so far together.
    max_prompt_tokens: Count
    #: `grant`, as first asked and as extended.
    max_grant: Count
    #: Generations open at a time on this connection.
    max_generations: Count
    #: Bytes of one frame.
    max_message_bytes: Count


# --- device → cloud ---------------------------------------------------------------------------------------------


class Hello(Message, frozen=True, tag="hello"):
    """The first message on a connection."""

    #: The newest version that the device speaks.
    version: Annotated[int, Meta(ge=1, le=65_535)]
    #: Name and version of the client, for logs.
    client: Name
    #: The model wanted; empty takes the service's default.
    model: Name = ""
    #: Fingerprint of the device's tokenizer. Empty where the device has no engine (in-cloud modes): text travels.
    tokenizer: Fingerprint = ""
    #: Fingerprint of the device's chat template.
    template: Fingerprint = ""


class Generate(Message, frozen=True, tag="generate"):
    """Prefill the prompt and give up to `grant` tokens from output index `len(output)` on.

    Exactly one of `prompt` and `messages`, as `welcome.travel` says. To continue an answer, `output` (beside `prompt`)
    holds its token ids so far, or `output_text` (beside `messages`) its text; the service goes on from there.
    """

    #: Chosen by the device; unlike that of any generation still open on this connection.
    id: GenerationId
    #: How many tokens this `generate` may give; 0 asks for a refinement only.
    grant: Annotated[int, Meta(ge=0, le=MAX_OUTPUT_TOKENS)]
    #: The whole prompt as token ids, template included; where ids travel.
    prompt: PromptTokens | None = None
    #: The prompt as a chat; where text travels.
    messages: Annotated[tuple[ChatMessage, ...], Meta(min_length=1, max_length=4_096)] | None = None
    #: How tokens are chosen.
    sampling: Sampling = Sampling()
    #: What to learn about the prompt; left out for nothing.
    refine: Refine | None = None
    #: The answer so far, as ids.
    output: OutputTokens = ()
    #: The answer so far, as text.
    output_text: Text = ""
    #: Texts that end the answer where they first appear.
    stop: Annotated[tuple[Annotated[str, Meta(min_length=1, max_length=256)], ...], Meta(max_length=16)] = ()
    #: What the answer must look like; left out for nothing. Since version 2.
    constraint: Constraint | None = None
    #: Milliseconds from arrival in which a first token is still of use; left out for the service's own.
    deadline_ms: Milliseconds | None = None
    #: The span on the device that this belongs to (W3C Trace Context); empty for none. What is none is ignored.
    traceparent: Annotated[str, Meta(max_length=64)] = ""

    def __post_init__(self) -> None:
        if (self.prompt is None) == (self.messages is None):
            raise EncodeError("expected exactly one of `prompt` and `messages`")
        if self.output and self.prompt is None:
            raise EncodeError("`output` goes with `prompt`; beside `messages` expected `output_text`")
        if self.output_text and self.messages is None:
            raise EncodeError("`output_text` goes with `messages`; beside `prompt` expected `output`")
        if self.refine is not None and self.refine.protected:
            end, length = self.refine.protected[-1][1], self._prompt_length()
            if end > length:
                raise EncodeError(f"`refine.protected` ends at {end}, expected at most {length}, the prompt's length")

    def _prompt_length(self) -> int:
        """In the unit of `refine.protected`."""
        if self.prompt is not None:
            return len(self.prompt)
        return sum(len(message.content) for message in self.messages or ())


class Progress(Message, frozen=True, tag="progress"):
    """Where the device stands, so that the service can order its work by slack."""

    id: GenerationId
    #: Output tokens that arrived: the index after the last one.
    received: Count
    #: Output tokens that were shown: the index after the last one.
    shown: Count
    #: What the device shows, in ms for a token; 0 where it does not pace.
    pace_ms: Milliseconds
    #: When the device expects to need the cloud no more; left out while it cannot tell.
    ready_in_ms: Milliseconds | None = None


class Extend(Message, frozen=True, tag="extend"):
    """Raise the grant of a running generation. For one that has just ended it comes too late and is ignored: the
    device then sends a new `generate` with the output so far."""

    id: GenerationId
    #: The tokens that this `generate` may give, in all. Fewer than now changes nothing.
    grant: Annotated[int, Meta(ge=0, le=MAX_OUTPUT_TOKENS)]


class Stop(Message, frozen=True, tag="stop"):
    """The device needs no more. Answered by `finished` with reason `stopped`, unless it has ended already.

    When it takes over, a device cannot know yet how long the answer will be. Once it does, it may say `stop` again,
    with `answer_tokens`, for the service's account of what it was spared; nothing answers that.
    """

    id: GenerationId
    #: The device goes on by itself, or the user gave up.
    reason: Literal["taken_over", "cancelled"]
    #: Length of the whole answer in output tokens, where it is known; else left out.
    answer_tokens: Count | None = None


# --- cloud → device ---------------------------------------------------------------------------------------------


class Welcome(Message, frozen=True, tag="welcome"):
    """The answer to `hello`."""

    #: The version that both sides speak from here on.
    version: Annotated[int, Meta(ge=1, le=65_535)]
    #: Name and version of the service, for logs.
    server: Name
    #: The model that answers on this connection.
    model: Name
    #: Fingerprint of its tokenizer.
    tokenizer: Fingerprint
    #: Fingerprint of its chat template.
    template: Fingerprint
    #: What the service accepts.
    limits: Limits
    #: `ids` where the fingerprints of both sides agree, else `text`.
    travel: Literal["ids", "text"]
    #: What a `generate` may ask for beyond the rest: `constraint` (since version 2), `refine.reread` (since version 3).
    offers: Annotated[tuple[Literal["constraint", "reread"], ...], Meta(max_length=64)] = ()


class Accepted(Message, frozen=True, tag="accepted"):
    """Sent at once for a `generate` that will be served, before anything else about it."""

    id: GenerationId
    #: Length of the prompt and the output so far together, in the service's tokens.
    prompt_tokens: Count
    #: Of these, how many need no prefill.
    cached_tokens: Count = 0
    #: The wait expected before the prefill.
    queue_ms: Milliseconds = 0.0


class Refinement(Message, frozen=True, tag="refinement"):
    """Spans of the prompt to keep. A later `stage` replaces an earlier one."""

    id: GenerationId
    #: From 1 upwards, not necessarily without gaps.
    stage: Annotated[int, Meta(ge=1, le=16)]
    #: Whether no other stage follows.
    final: bool
    #: Of the spans, see `Refine`: tokens of `prompt`, or characters of `messages`.
    unit: Literal["tokens", "characters"]
    #: In order, not overlapping. Protected spans are among them.
    keep: Spans
    #: `passed`: the scores decided. All others keep the whole prompt. `flat`: importance is spread evenly, as in
    #: counting, summarising or translating; `short`: nothing could be left out; `failed`: the scorer did not work;
    #: `unavailable`: the service does not score, or not this prompt.
    guard: Guard = "passed"
    #: Why the guard decided so, with its figures; for people.
    detail: Annotated[str, Meta(max_length=200)] = ""
    #: Name of what scored the prompt.
    scorer: Name = ""
    #: What scoring and selecting took, in ms; the engine's own pass over the prompt is not in it.
    cost_ms: Milliseconds = 0.0
    #: The answer comes from these spans alone, as `refine.reread` asked. Since version 3.
    reread: bool = False

    def __post_init__(self) -> None:
        _check_spans("keep", self.keep)


class Tokens(Message, frozen=True, tag="tokens"):
    """The next output tokens, at least one.

    Where ids travel, `ids` holds them. Where text travels, `data` holds the bytes that these tokens add to the text
    (a character may be split between two messages) and `count` says how many tokens they are.
    """

    id: GenerationId
    #: Output index of the first of them.
    first: Count
    #: The tokens; where ids travel.
    ids: OutputTokens = ()
    #: How many tokens `data` stands for; where text travels.
    count: Count = 0
    #: UTF-8, possibly cut inside a character; where text travels.
    data: Annotated[bytes, Meta(max_length=MAX_TEXT)] = b""

    def __post_init__(self) -> None:
        if bool(self.ids) == bool(self.count):
            raise EncodeError("expected at least one token, as exactly one of `ids` and `count` (with `data`)")
        if self.data and self.ids:
            raise EncodeError("`data` goes with `count`; beside `ids` expected none")

    @property
    def end(self) -> int:
        """The output index after the last of them."""
        return self.first + (len(self.ids) or self.count)


class Finished(Message, frozen=True, tag="finished"):
    """Terminal. `grant`: the grant is used up and the answer goes on; `eos` and `stop`: the answer ends here;
    `stopped`: the device said `stop`; `context`: the context is full."""

    id: GenerationId
    #: Why it ends.
    reason: Literal["grant", "eos", "stop", "stopped", "context"]
    #: What it took.
    usage: Usage = Usage()


class Rejected(Message, frozen=True, tag="rejected"):
    """Terminal: not served, nothing was generated; a refinement may have come. The device carries on alone."""

    id: GenerationId
    #: Why not.
    reason: Literal["busy", "deadline", "rate_limit", "draining", "too_long", "unsupported"]
    #: For people.
    message: Annotated[str, Meta(max_length=2_000)] = ""
    #: When trying again may help; left out where it will not, or nobody knows.
    retry_after_ms: Milliseconds | None = None


class Error(Message, frozen=True, tag="error"):
    """Terminal for a generation; with an empty `id`, about the connection, which is then closed."""

    #: The generation; empty for the connection.
    id: Annotated[str, Meta(max_length=64, pattern=r"^[A-Za-z0-9_.:-]*$(?!\n)")]
    #: What kind of fault, for programs.
    code: Literal[
        "bad_message", "bad_request", "unknown_generation", "version", "model", "engine", "internal", "slow_reader"
    ]
    #: What was wrong, what was expected, what to do; for people.
    message: Annotated[str, Meta(max_length=2_000)]
    #: Whether the same request can succeed later or elsewhere.
    retriable: bool = False


class Draining(Message, frozen=True, tag="draining"):
    """The service goes away: no new generation is accepted, running ones have until then to finish."""

    #: When the connection will be closed, with 1001.
    in_ms: Milliseconds


DeviceMessage: TypeAlias = Hello | Generate | Progress | Extend | Stop
CloudMessage: TypeAlias = Welcome | Accepted | Refinement | Tokens | Finished | Rejected | Error | Draining


def terminal(message: DeviceMessage | CloudMessage) -> bool:
    """Whether `message` is the last of its generation (of them all, for an `error` about the connection)."""
    return isinstance(message, Finished | Rejected | Error)


def _check_spans(name: str, spans: Spans) -> None:
    """Raises EncodeError where a span is empty or does not begin at or after the end of the one before it."""
    last = 0
    for index, (start, end) in enumerate(spans):
        if start >= end:
            raise EncodeError(f"`{name}[{index}]` is {start}…{end}, expected a start before its end")
        if start < last:
            raise EncodeError(f"`{name}[{index}]` starts at {start}, expected at least {last}, where the last one ends")
        last = end
