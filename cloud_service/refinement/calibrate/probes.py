"""What a model is asked to find out where it looks: questions whose evidence is known, and questions about everything.

Out of any text: a fact that has nothing to do with it is planted somewhere, and asked for (the needle probe of EHPC,
arXiv 2501.12959); beside that, the same text is to be counted, summarised or translated. Or from a file of one's own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Annotated

import msgspec
from msgspec import Meta

from model_runtime.core import Message

_SENTENCE = re.compile(r"\S.*?(?:[.!?](?=\s)|\n|$)\s*", re.DOTALL)
_THINGS = (
    "access code", "opening year", "room number", "telephone number", "postal code", "parking space", "serial number",
    "closing hour", "membership fee", "shelf number",
)  # fmt: skip
_OWNERS = (
    "Harlow library", "Bergen museum", "old harbour office", "Tamsin bakery", "north greenhouse", "Ostrava theatre",
    "red lighthouse", "village school", "Quill bookshop", "Marlow observatory", "ferry terminal", "glass workshop",
)  # fmt: skip
_WHOLE = (
    "How many sentences does the text have?", "Summarise the text.", "Translate the text into French.",
    "How many words does the text have?", "What is the text about?", "Rewrite the text in simpler words.",
    "How often does the text say \"the\"?", "List all names in the text.",
)  # fmt: skip


class ProbeError(Exception):
    """Probes that cannot be made or read: the message says why and what to do."""


class Probe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One line of a probe file: `{"text": …, "question": …, "evidence": [[start, end], …]}`."""

    text: Annotated[str, Meta(min_length=1)]
    question: Annotated[str, Meta(min_length=1)]
    #: Characters of `text` that the answer rests on; none where it rests on all of it.
    evidence: tuple[tuple[int, int], ...] = ()

    @property
    def flat(self) -> bool:
        return not self.evidence

    @property
    def messages(self) -> list[Message]:
        return [Message(role="user", content=f"{self.text}\n\n{self.question}")]


def read_probes(path: Path) -> list[Probe]:
    """Raises ProbeError."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise ProbeError(f"{path} cannot be read: {error.strerror}") from error
    probes = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                probe = msgspec.json.decode(line, type=Probe)
            except msgspec.DecodeError as error:
                raise ProbeError(f"{path}, line {number} is no probe: {error}") from error
            if not all(0 <= start < end <= len(probe.text) for start, end in probe.evidence):
                raise ProbeError(f"{path}, line {number}: evidence is not within the text")
            probes.append(probe)
    return probes


def make_probes(
    text: str, size: Callable[[str], int], *, lengths: tuple[int, ...], count: int, seed: int
) -> list[Probe]:
    """`count` needle probes and as many about everything, in turns, over parts of `text` of about `lengths` tokens.
    `size` counts tokens. Raises ProbeError for a text that is too short."""
    sentences = _SENTENCE.findall(text)
    rng = Random(f"probes/{seed}")
    return list(_make(sentences, size, lengths, count, rng))


def default_text() -> str:
    """Prose that every Python brings along: the help texts of the language reference."""
    from pydoc_data.topics import topics

    return "\n".join(topics[name] for name in sorted(topics))


def _make(
    sentences: list[str], size: Callable[[str], int], lengths: tuple[int, ...], count: int, rng: Random
) -> Iterator[Probe]:
    for number in range(count):
        length = lengths[number % len(lengths)]
        part = _part(sentences, size, length, rng)
        thing, owner = rng.choice(_THINGS), rng.choice(_OWNERS)
        fact = f"The {thing} of the {owner} is {rng.randint(100, 9999)}."
        place = rng.randrange(len(part) + 1)
        before = "".join(part[:place])
        end = "\n" if before.endswith("\n") or not before else " "
        whole = f"{before}{fact}{end}{''.join(part[place:])}".rstrip()
        yield Probe(whole, f"What is the {thing} of the {owner}?", ((len(before), len(before) + len(fact)),))
        yield Probe("".join(_part(sentences, size, length, rng)).rstrip(), rng.choice(_WHOLE))


def _part(sentences: list[str], size: Callable[[str], int], length: int, rng: Random) -> list[str]:
    """Sentences one after the other, of about `length` tokens."""
    for _ in range(20):
        first = rng.randrange(len(sentences)) if sentences else 0
        tokens, part = 0, []
        for sentence in sentences[first:]:
            part.append(sentence)
            tokens += size(sentence)
            if tokens >= length:
                return part
    raise ProbeError(f"the text is too short for probes of {length} tokens: give a longer one, or ask for fewer tokens")
