"""What refinement is measured on: questions with exact answers, and where in the prompt the answers stand.

logbook  held-out logbooks, the bundled models' own subject (`demos.training.logbook`);
prose    chapters of the Python language reference, as every Python brings them for `help()`, with entries of a logbook
         planted between their paragraphs: real text, wrapped lines, tables, code. The language stays fixed for one
         version of Python only, so figures on it name the version.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import TYPE_CHECKING, Literal

from cloud_service.refinement.contract import Prompt, Span
from demos.training.logbook import held_out, make_document, make_questions
from device_sdk.refining import protected_spans
from model_runtime.prompt_map import prompt_map

if TYPE_CHECKING:
    from collections.abc import Iterator

    from demos.training.logbook import AnyKind, QuestionKind
    from model_runtime.core import Message, Tokenizer

Source = Literal["logbook", "prose"]
#: Planted entries are of one small logbook; the others are there to be confused with the one that is asked for.
_PLANTED_TOKENS = 400
_REPORT_LINES = 4


@dataclass(frozen=True, slots=True)
class Case:
    #: The place among those of its source, kind and length.
    number: int
    source: Source
    kind: QuestionKind
    #: What was asked for; `prompt` has about as many.
    length: int
    prompt: Prompt
    #: Tokens of the prompt that the answer rests on. In order, disjoint.
    evidence: tuple[Span, ...]
    #: The same as text, one for each.
    lines: tuple[str, ...]
    #: The answer's tokens, without its end.
    answer: tuple[int, ...]
    document: str
    question: str


def logbooks(tokenizer: Tokenizer, kind: QuestionKind, length: int, count: int, seed: int) -> Iterator[Case]:
    for number, case in enumerate(held_out(kind, length, count, seed)):
        document, _, question = case.messages[-1]["content"].rpartition("\n\n")
        yield _case(tokenizer, number, "logbook", kind, length, document, question, case.answer, case.evidence)


def training_logbooks(tokenizer: Tokenizer, kind: QuestionKind, length: int, count: int, seed: int) -> Iterator[Case]:
    """Of the words and wordings that the bundled models were trained on: to choose settings on, never to report."""
    attempt = made = 0
    while made < count:
        rng = Random(f"{seed}/training/{kind}/{length}/{attempt}")
        attempt += 1
        document = make_document(rng, length - 30, "train")
        # A report of fewer lines is a lookup in disguise.
        asked = make_questions(rng, document, 1, {kind: 1.0})
        if asked and (kind != "report" or len(asked[0].evidence) >= _REPORT_LINES):
            [question] = asked
            yield _case(
                tokenizer,
                made,
                "logbook",
                kind,
                length,
                document.text,
                question.text,
                question.answer,
                question.evidence,
            )
            made += 1


def prose(tokenizer: Tokenizer, kind: QuestionKind, length: int, count: int, seed: int) -> Iterator[Case]:
    paragraphs = _paragraphs()
    weights: dict[AnyKind, float] = {kind: 1.0}
    attempt = made = 0
    while made < count:
        rng = Random(f"{seed}/prose/{kind}/{length}/{attempt}")
        attempt += 1
        log = make_document(rng, _PLANTED_TOKENS, "eval")
        questions = make_questions(rng, log, 1, weights)
        if not questions:
            continue
        room = length - 30 - sum(len(tokenizer.encode(entry.text)) for entry in log.entries)
        text: list[str] = []
        at = rng.randrange(len(paragraphs))
        while room > 0:
            paragraph = paragraphs[at % len(paragraphs)]
            room -= len(tokenizer.encode(paragraph)) + 1
            at += 1
            if room > 0 or not text:
                text.append(paragraph)
        places = sorted(rng.choices(range(len(text) + 1), k=len(log.entries)), reverse=True)
        for place, entry in zip(places, reversed(log.entries), strict=True):
            text.insert(place, entry.text)
        document = "\n\n".join(text)
        question = questions[0]
        cited = [entry.text for entry in log.entries if entry.span in question.evidence]
        evidence = tuple((document.index(line), document.index(line) + len(line)) for line in cited)
        yield _case(tokenizer, made, "prose", kind, length, document, question.text, question.answer, evidence)
        made += 1


def _case(
    tokenizer: Tokenizer,
    number: int,
    source: Source,
    kind: QuestionKind,
    length: int,
    document: str,
    question: str,
    answer: str,
    evidence: tuple[Span, ...],
) -> Case:
    content = f"{document}\n\n{question}"
    messages: list[Message] = [{"role": "user", "content": content}]
    tokens = tokenizer.render_chat(messages)
    pieces = tuple(tokenizer.token_bytes(token) for token in tokens)
    places = prompt_map(messages, pieces)
    if places is None:
        raise ValueError("the chat template does not hold messages as they are, so evidence cannot be found in it")
    return Case(
        number=number,
        source=source,
        kind=kind,
        length=length,
        prompt=Prompt(tuple(tokens), pieces, protected_spans(messages, places, ())),
        evidence=places.tokens_of(evidence),
        lines=tuple(content[start:stop] for start, stop in evidence),
        answer=tuple(tokenizer.encode(answer)),
        document=document,
        question=question,
    )


@cache
def _paragraphs() -> tuple[str, ...]:
    """Of the language reference, in its order, without headings' underlines and the shortest scraps."""
    from pydoc_data.topics import topics

    text = "\n\n".join(topics[name] for name in sorted(topics))
    found = (re.sub(r"\n[*=~^\-]{3,}$", "", paragraph.strip("\n")) for paragraph in re.split(r"\n\s*\n", text))
    return tuple(paragraph for paragraph in found if 40 <= len(paragraph) <= 1500)
