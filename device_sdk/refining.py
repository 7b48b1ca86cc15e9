"""Whether the cloud is asked which part of a prompt matters, and what of it the device reads in any case."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from device_sdk.errors import ConfigurationError
from device_sdk.generation.plan import RefineWish
from device_sdk.generation.spans import Span, Spans, outside, size, union
from model_runtime.core import Message, Tokenizer
from model_runtime.prompt_map import PromptMap, prompt_map
from speed_controller.split import DEFAULT_KEEP_RATIO, SplitSettings

#: Tokens. A last paragraph or line up to this long is taken for the question; a first line up to this long for an
#: instruction about what follows it; and where no question is found, so many of the prompt's last ones stay.
QUESTION, INSTRUCTION, LAST_WINDOW = 160, 32, 48


@dataclass(frozen=True, slots=True)
class Protected:
    """Part of the prompt that the device reads whatever the cloud says of it, such as an example to follow: characters
    [start, stop) of the content of `messages[message]`, counted as in a slice; all of it where nothing is said."""

    message: int
    start: int | None = None
    stop: int | None = None


@dataclass(frozen=True, slots=True)
class Refining:
    """A wish, and the map by which spans travel where the cloud's tokenizer is another."""

    wish: RefineWish
    map: PromptMap


def refining(
    messages: Sequence[Message],
    prompt: Sequence[int],
    tokenizer: Tokenizer,
    split: SplitSettings,
    refine: bool | float | None,
    protect: Iterable[Protected],
    *,
    fits: bool = True,
) -> Refining | None:
    """What to ask of the cloud; None where the device reads the whole prompt.

    `refine`: None as the settings say, False never, True whatever the prompt's length, a number for this keep ratio
    whatever its length. `fits`: whether the device's context holds the prompt. A prompt that does not hold the messages
    as they are (see `prompt_map`) is not refined. Raises ConfigurationError.
    """
    given = list(protect)
    for one in given:
        if not -len(messages) <= one.message < len(messages):
            raise ConfigurationError(f"protect names message {one.message}; there are {len(messages)}")
    ratio = _ratio(split, refine, len(prompt))
    if ratio is None or not prompt:
        return None
    found = prompt_map(messages, [tokenizer.token_bytes(token) for token in prompt])
    if found is None:
        return None
    reread = not fits if split.reread is None else split.reread
    return Refining(RefineWish(ratio, protected_spans(messages, found, given), reread), found)


def protected_spans(messages: Sequence[Message], where: PromptMap, given: Iterable[Protected]) -> Spans:
    """In tokens: the template, what the system says, the question or else the last window, an instruction before it,
    and `given`."""
    characters: list[Span] = [_slice(messages, where, one) for one in given]
    for message, span in zip(messages, where.messages, strict=True):
        if message["role"] == "system":
            characters.append(span)
    question = None
    if users := [index for index, message in enumerate(messages) if message["role"] == "user"]:
        content, offset = messages[users[-1]]["content"], where.messages[users[-1]][0]
        question = _question(content, where, offset)
        characters += [span for span in (question, _instruction(content, where, offset)) if span is not None]
    window = [] if question else [(max(where.tokens - LAST_WINDOW, 0), where.tokens)]
    return union(where.tokens_of(characters), outside(where.contents, where.tokens), window)


def _question(content: str, where: PromptMap, offset: int) -> Span | None:
    """The last paragraph of the user's message, or else its last line, if it is short."""
    body = content.rstrip()
    first = len(content) - len(content.lstrip())
    for border in ("\n\n", "\n"):
        start = body.rfind(border) + len(border) if border in body else first
        span = (offset + start, offset + len(body))
        if start < len(body) and size(where.tokens_of([span])) <= QUESTION:
            return span
    return None


def _instruction(content: str, where: PromptMap, offset: int) -> Span | None:
    """The first line of the user's message, if it is short and others follow."""
    first = len(content) - len(content.lstrip())
    line = content.rstrip().find("\n", first)
    span = (offset + first, offset + line)
    return span if line > 0 and size(where.tokens_of([span])) <= INSTRUCTION else None


def _slice(messages: Sequence[Message], where: PromptMap, one: Protected) -> Span:
    begin, _ = where.messages[one.message]
    start, stop, _ = slice(one.start, one.stop).indices(len(messages[one.message]["content"]))
    return begin + start, begin + max(start, stop)


def wished_ratio(split: SplitSettings, refine: float | None) -> float:
    """The keep ratio that is wished for, whatever the prompt's length: the caller's, or else the settings'."""
    return split.keep_ratio or DEFAULT_KEEP_RATIO if refine is None or refine is True else refine


def _ratio(split: SplitSettings, refine: bool | float | None, prompt_tokens: int) -> float | None:
    """The keep ratio; None for no refinement."""
    if refine is False:
        return None
    if refine is None:
        return split.keep_ratio_for(prompt_tokens)
    ratio = wished_ratio(split, refine)
    if not 0 < ratio <= 1:
        raise ConfigurationError(f"refine is {refine!r}; it must be True, False, or a keep ratio above 0 up to 1")
    return None if ratio == 1 else ratio
