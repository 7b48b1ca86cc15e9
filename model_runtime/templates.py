"""Chat templates: messages to prompt text, by the Jinja2 source that a model ships.

The environment is the one transformers sets up, so templates written for it render the same text here. On top of
that, text in a message must never become a special token: a user who writes `<|im_end|>` ends no turn.

How that is kept: wherever a special token's text occurs in a message (or could arise where a message meets the text
around it), a *guard* character that occurs nowhere else is put inside it before rendering. Templates may then trim,
split or join contents as they like; special tokens in the rendered text are the template's own. The guard is
taken out again afterwards, and the run of text it stood in is marked as untrusted.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.sandbox import ImmutableSandboxedEnvironment

from model_runtime import thinking
from model_runtime.errors import TemplateError
from model_runtime.tools.hermes import as_plain_messages
from model_runtime.tools.messages import as_template_sees_them, speaks_of_tools
from model_runtime.tools.syntax import ToolSyntax, declared_by

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from jinja2.parser import Parser

    from model_runtime.core import Message
    from model_runtime.thinking import ThinkingTags
    from model_runtime.tools.spec import Tool

_V = TypeVar("_V")

#: ChatML, used where a model brings no template of its own.
DEFAULT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
)

_ROLE = re.compile(r"[A-Za-z0-9_]+")


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of a rendered prompt.

    Neighbours meet at a special token, so the prompt's ids are those of its segments, one after the other:
    `encode(text, special=trusted)`.
    """

    text: str
    #: True: special tokens in `text` are the template's. False: what looks like one came from a message.
    trusted: bool


class ChatTemplate:
    """A compiled chat template. Immutable; safe to use from any thread.

    `source` is Jinja2 text, None takes `DEFAULT_TEMPLATE`. `bos` and `eos` are the texts of these tokens (empty where
    there is none). `specials` are the texts of all special tokens, which messages must not be able to produce.
    `now` is what a template's `strftime_now` prints. Raises TemplateError where the source does not compile.
    """

    def __init__(
        self,
        source: str | None,
        *,
        bos: str,
        eos: str,
        specials: Collection[str],
        now: Callable[[], datetime] = lambda: datetime.now(UTC).astimezone(),
    ) -> None:
        self._text = DEFAULT_TEMPLATE if source is None else source
        self._tokens = {"bos_token": bos, "eos_token": eos}
        self._specials = tuple(specials)
        self._guards = _Guards(specials)
        environment = _environment(now)
        try:
            self._template = environment.from_string(self._text)
        except jinja2.TemplateSyntaxError as error:
            raise TemplateError(f"the chat template does not compile: line {error.lineno}: {error.message}") from error

    def render(
        self, messages: Sequence[Message], *, add_generation_prompt: bool = True, tools: Sequence[Tool] = ()
    ) -> list[Segment]:
        """The prompt of `messages` in segments; joined, their texts are what the template gives.

        A template that knows no tools gets them, and calls and results among the messages, as plain text (`hermes.py`).
        Raises TemplateError where the template refuses the messages (most name the rule, such as alternating roles)
        or breaks on them.
        """
        for message in messages:
            # Some templates make a special token of the role: `<|` + role + `|>`.
            if not _ROLE.fullmatch(message["role"]):
                raise TemplateError(f"a role is a plain word such as 'user' or 'assistant', not {message['role']!r}")
        if (tools or speaks_of_tools(messages)) and self.tool_syntax is None:
            messages, tools = as_plain_messages(messages, tools), ()
        seen = as_template_sees_them(messages)
        described = [tool.as_template_sees_it() for tool in tools]
        guard = self._guards.choose([self._text, *_texts(seen), *_texts(described)])
        guarded = self._guards.protect_all(seen, guard), self._guards.protect_all(described, guard)
        return self._guards.split(self._render(*guarded, add_generation_prompt), guard)

    @property
    def thinking(self) -> ThinkingTags | None:
        """What stands around a reasoning model's thinking; None where the template does not say."""
        return thinking.declared_by(self._text)

    @cached_property
    def tool_syntax(self) -> ToolSyntax | None:
        """How this template writes a call; None where it knows no tools."""
        return declared_by(self._render, self._specials)

    def _render(self, messages: list[dict[str, Any]], tools: list[dict[str, Any]], add_generation_prompt: bool) -> str:
        try:
            return self._template.render(
                messages=messages,
                tools=tools or None,
                documents=None,
                add_generation_prompt=add_generation_prompt,
                **self._tokens,
            )
        except _RefusedError as error:
            raise TemplateError(f"the chat template refuses these messages: {error}") from error
        # The template is code from elsewhere: whatever it runs into is the template's error.
        except Exception as error:
            raise TemplateError(f"the chat template broke: {type(error).__name__}: {error}") from error


class _RefusedError(Exception):
    """A template called `raise_exception`."""


class _Guards:
    """Puts guard characters into the texts of special tokens, and takes them out again."""

    def __init__(self, specials: Collection[str]) -> None:
        # Longest first, so that of two that begin alike the longer one is found, as tokenizers do.
        texts = sorted({text for text in specials if len(text) > 1}, key=len, reverse=True)
        self._single = frozenset(text for text in specials if len(text) == 1)
        self._special = re.compile("|".join(map(re.escape, texts)) if texts else r"(?!)", re.DOTALL)
        # Behind the first character of every special token, also where two overlap.
        self._inside = re.compile(f"(?={self._special.pattern})(.)", re.DOTALL)
        self._longest = max(map(len, texts), default=0)
        self._heads = {text[:n] for text in texts for n in range(1, len(text))}
        self._tails = {text[n:] for text in texts for n in range(1, len(text))}

    def choose(self, texts: Sequence[str]) -> str:
        """A character that occurs in none of the texts."""
        used = set().union(*texts)
        # A private use area of 65,534 characters; a prompt that uses them all does not exist.
        return next(chr(code) for code in range(0x100000, 0x10FFFE) if chr(code) not in used)

    def protect_all(self, value: _V, guard: str) -> _V:
        """`value` with every text in it protected, keys included."""
        protected: _V = _mapped(value, lambda text: self.protect(text, guard))
        return protected

    def protect(self, text: str, guard: str) -> str:
        reserved = self._single.intersection(text)
        if reserved:  # One character has no inside to put a guard into.
            raise TemplateError(f"a message contains {min(reserved)!r}, which this model reserves as a special token")
        if self._special.search(text):
            text = self._inside.sub(rf"\1{guard}", text)
        body = text.strip()
        # Where the message could be one half of a special token and the text around it the other. Inside the white
        # space at its ends, which many templates trim.
        if any(body[-n:] in self._heads for n in range(1, self._longest)):
            text = text.rstrip() + guard + text[len(text.rstrip()) :]
        if any(body[:n] in self._tails for n in range(1, self._longest)):
            text = text[: len(text) - len(text.lstrip())] + guard + text.lstrip()
        return text

    def split(self, text: str, guard: str) -> list[Segment]:
        clean = text.replace(guard, "")
        if len(clean) == len(text):
            return [Segment(text, trusted=True)] if text else []
        meant: list[tuple[int, int]] = []  # the template's special tokens in `clean`
        segments: list[Segment] = []
        trusted = ""
        position = removed = 0
        for start, end in [*(match.span() for match in self._special.finditer(text)), (len(text), len(text))]:
            run = text[position:start]
            if guard in run:
                segments += [Segment(trusted, trusted=True), Segment(run.replace(guard, ""), trusted=False)]
                trusted = ""
            else:
                trusted += run
            trusted += text[start:end]
            position = end
            removed += run.count(guard)
            meant.append((start - removed, end - removed))
        if [match.span() for match in self._special.finditer(clean)] == meant[:-1]:
            return [Segment(clean, trusted=True)]  # it only could have been: encoded in one go, as transformers does
        return [segment for segment in [*segments, Segment(trusted, trusted=True)] if segment.text]


def _texts(value: object) -> Iterator[str]:
    """Every text in a value of JSON's types."""
    match value:
        case str():
            yield value
        case dict():
            for key, inner in value.items():
                yield key
                yield from _texts(inner)
        case list():
            for inner in value:
                yield from _texts(inner)


def _mapped(value: Any, change: Callable[[str], str]) -> Any:
    match value:
        case str():
            return change(value)
        case dict():
            return {change(key): _mapped(inner, change) for key, inner in value.items()}
        case list():
            return [_mapped(inner, change) for inner in value]
        case _:
            return value


def _environment(now: Callable[[], datetime]) -> ImmutableSandboxedEnvironment:
    def raise_exception(message: str) -> NoReturn:
        raise _RefusedError(message)

    def to_json(
        value: object,
        ensure_ascii: bool = False,
        indent: int | None = None,
        separators: Any = None,
        sort_keys: bool = False,
    ) -> str:
        # Jinja's own `tojson` escapes for HTML, which is not what models saw.
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, "jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = to_json
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = lambda form: now().strftime(form)
    return environment


class _Generation(Extension):
    """`{% generation %} … {% endgeneration %}` marks answers for training; here it is transparent."""

    tags = {"generation"}  # noqa: RUF012 - jinja2's own interface

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)
