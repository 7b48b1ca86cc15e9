"""Training batches: one document and many questions, each question seeing the document and itself alone.

A document's tokens cost most; asked in parallel branches, dozens of questions share them, and every branch is exactly
what evaluation shows: one document, one question. In a conversation the branches see one another instead.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import numpy as np
from tokenizers import Tokenizer

from demos.training import phrases
from demos.training.logbook import PARTS, excerpt, make_document, make_questions

if TYPE_CHECKING:
    from demos.training.chat import ChatFormat
    from demos.training.logbook import AnyKind, Question
    from demos.training.vocabulary import Split

QUESTION_WEIGHTS: dict[AnyKind, float] = {
    "lookup": 12.0, "step": 4.0, "report": 4.0, "count": 0.8, "absent": 0.6, "chat": 0.06,
}  # fmt: skip
# Loss weights: which entry to cite and whether to go on decide an answer; the rest is copying. A lookup decides once,
# where a report has dozens of tokens for each decision; whether a report goes on is learnt last. The first words behind
# a step's label tell whether its line was found among all those with labels like it (those behind the colon of a few
# wordings are weighed alike).
_DECISION, _COPY, _ASKED, _GOES_ON, _WHICH, _FOUND = 3.0, 1.0, 0.1, 9.0, 12.0, 4.0
_FOUND_BY = 3
# What makes a long document hard is that much of it is nearly what is asked for. So it is in a short one whose names
# share their words.
_FEWEST_PARTS = 0.12
# How many times as long what is refined was before.
_REFINED_FROM = (3, 10)
# The words of entries' wordings that say nothing of what happened: any other word may stand there.
_GLUE = frozenset(["the", "to", "by", "of", "in", "for", "from", "with", "and", "at", "a", "was", "over"])


@dataclass(frozen=True, slots=True)
class Shape:
    """How long a document is, and how many tokens of questions and answers follow it."""

    document: int
    questions: int

    @property
    def total(self) -> int:
        return self.document + self.questions


@dataclass(slots=True)
class Batch:
    """Arrays of B rows: the document's tokens first (padded to a common length), then the questions'."""

    ids: np.ndarray
    positions: np.ndarray
    document_length: np.ndarray
    branch: np.ndarray
    """(B, questions): which branch a token belongs to, -1 for padding."""
    weights: np.ndarray
    """(B, questions): what predicting the *next* token counts."""
    line: np.ndarray
    """(B, total): the number that opens a document token's line, -1 where there is none."""
    previous: np.ndarray
    """(B, total): the number of the line before this one that holds the same word after the same word, or -1."""
    first: np.ndarray
    """(B, total): from the asked name on, the number that is cited next (at last the end token), or -1."""
    answers: list[tuple[int, int, int, str]]
    """Row, start, end (of the tokens that predict the answer, within the questions' part) and kind."""


@dataclass(frozen=True, slots=True)
class Mix:
    """Shares of rows: random tokens twice, positions stretched, known words cut into pieces, entries reworded, names
    that share their words, what a refinement would keep of a longer document. And of lookups: told up to the entry's
    number, which is all that a lookup decides."""

    repeats: float
    stretch: float
    pieces: float
    reworded: float = 0.0
    alike: float = 0.0
    brief: float = 0.0
    refined: float = 0.0


PLAIN = Mix(0.0, 0.0, 0.0)


class Encoder:
    """Text to ids; with variants in which known words fall into pieces, as unseen words do at evaluation."""

    def __init__(self, tokenizer_file: Path, variants: int, seed: int) -> None:
        text = tokenizer_file.read_text()
        self.whole = Tokenizer.from_str(text)
        rng = Random(seed)
        self._variants = [Tokenizer.from_str(_without_words(text, rng)) for _ in range(variants)]

    def pick(self, rng: Random, split: Split, share: float) -> Tokenizer:
        return rng.choice(self._variants) if split == "train" and rng.random() < share else self.whole


def _without_words(tokenizer_json: str, rng: Random) -> str:
    data = json.loads(tokenizer_json)
    model = data["model"]
    share = rng.uniform(0.2, 0.9)
    gone = {t for t in model["vocab"] if len(t) > 3 and not t.isdigit() and rng.random() < share}
    # Renamed to what no text holds, not left out: special tokens are numbered from the vocabulary's size on.
    model["vocab"] = {f"\0{index}" if token in gone else token: index for token, index in model["vocab"].items()}
    model["merges"] = [m for m in model["merges"] if not gone & {m[0], m[1], m[0] + m[1]}]
    return json.dumps(data)


class BatchMaker:
    def __init__(self, encoder: Encoder, chat: ChatFormat, reach: int) -> None:
        self._encoder = encoder
        self._chat = chat
        self._reach = reach
        """The longest distance that positions are stretched to."""
        self._vocabulary = encoder.whole.get_vocab_size()
        names = [encoder.whole.id_to_token(index) for index in range(self._vocabulary)]
        self._numbers = {index for index, name in enumerate(names) if name.isdigit() and len(name) == 3}
        common = {token for text in _wordings() for token in encoder.whole.encode(text).ids}
        self._pieces = [n for n in names if n.isascii() and n.isalpha() and n.islower() and len(n) < 5]
        self._telling = {i for i, name in enumerate(names) if i not in common and any(c.isalpha() for c in name)}

    def make(self, rng: Random, shape: Shape, rows: int, split: Split = "train", mix: Mix = PLAIN) -> Batch:
        batch = Batch(
            ids=np.zeros((rows, shape.total), np.int64),
            positions=np.zeros((rows, shape.total), np.int64),
            document_length=np.zeros(rows, np.int64),
            branch=np.full((rows, shape.questions), -1, np.int64),
            weights=np.zeros((rows, shape.questions), np.float32),
            line=np.full((rows, shape.total), -1, np.int64),
            previous=np.full((rows, shape.total), -1, np.int64),
            first=np.full((rows, shape.total), -1, np.int64),
            answers=[],
        )
        for row in range(rows):
            if split == "train" and rng.random() < mix.repeats:
                self._repeat(rng, shape, batch, row)
            else:
                self._logbook(rng, shape, batch, row, split, mix)
        return batch

    def _repeat(self, rng: Random, shape: Shape, batch: Batch, row: int) -> None:
        """Random tokens twice: nothing but looking back predicts the second half."""
        length = min(shape.document, shape.questions)
        tokens = np.array([rng.randrange(self._vocabulary) for _ in range(length)])
        batch.ids[row, :length] = tokens
        batch.ids[row, shape.document : shape.document + length] = tokens
        batch.positions[row, :length] = np.arange(length)
        batch.positions[row, shape.document : shape.document + length] = np.arange(length, 2 * length)
        batch.document_length[row] = length
        batch.branch[row, :length] = 0
        batch.weights[row, : length - 1] = 0.3

    def _logbook(self, rng: Random, shape: Shape, batch: Batch, row: int, split: Split, mix: Mix) -> None:
        chat, tokenizer = self._chat, self._encoder.pick(rng, split, mix.pieces)

        def encode(text: str) -> list[int]:
            return tokenizer.encode(text, add_special_tokens=False).ids

        def encode_all(texts: list[str]) -> list[list[int]]:
            return [e.ids for e in tokenizer.encode_batch(texts, add_special_tokens=False)]

        opening = ""
        if rng.random() < 0.3:
            opening = chat.open("system") + rng.choice(phrases.SYSTEM_MESSAGES) + chat.end + chat.separator
        introduction = rng.choice(phrases.INTRODUCTIONS)
        apart = rng.random() < 0.12
        target = shape.document - 16
        reword = self._reword if split == "train" and rng.random() < mix.reworded else None
        parts = rng.uniform(_FEWEST_PARTS, PARTS) if split == "train" and rng.random() < mix.alike else PARTS
        times = rng.randint(*_REFINED_FROM) if split == "train" and rng.random() < mix.refined else 1
        while True:
            document = make_document(rng, min(times * target, self._reach), split, reword, parts)
            if times > 1:
                document = excerpt(rng, document, target)
            prompt = encode(opening + chat.open("user") + introduction + document.text[:-1])
            if len(prompt) <= shape.document:
                break
            target = max(24, int(target * 0.95))
        # The document's last full stop opens each branch, so that no piece spans the cut.
        lead = "." + (chat.end + chat.separator + chat.open("assistant") + "I have read the log." + chat.end
                      + chat.separator + chat.open("user") if apart else "\n\n")  # fmt: skip
        turn = chat.end + chat.separator + chat.open("assistant")
        conversation = split == "train" and rng.random() < 0.12
        batch.ids[row, : len(prompt)] = prompt
        batch.document_length[row] = len(prompt)
        positions = np.arange(len(prompt))
        if rng.random() < mix.stretch:
            positions = self._stretched(rng, np.array(prompt), encode("\n")[0])
        batch.positions[row, : len(prompt)] = positions
        newline = encode("\n")[0]
        turn_ids = encode(turn)
        seen = self._trace(prompt, newline, batch.line[row], batch.previous[row])
        base = at = shape.document
        next_position = int(positions[-1]) + 1
        most = max(4, shape.questions // (16 if mix.brief else 24))
        questions = make_questions(rng, document, most, QUESTION_WEIGHTS)
        asked = encode_all([self._lead(i, lead, conversation) + q.text + turn for i, q in enumerate(questions)])
        answered = encode_all([q.answer + chat.end for q in questions])
        for index, question in enumerate(questions):
            ask, answer = asked[index], answered[index]
            weights = _weigh(tokenizer, answer, question)
            if question.kind == "lookup" and not conversation and rng.random() < mix.brief:
                answer, weights = answer[:1], weights[:1]
            size = len(ask) + len(answer)
            if at + size > shape.total:
                continue
            batch.ids[row, at : at + size] = ask + answer
            batch.positions[row, at : at + size] = np.arange(next_position, next_position + size)
            for place in range(1, len(ask)):
                if ask[place] in self._telling:
                    batch.previous[row, at + place] = seen.get((ask[place - 1], ask[place]), -1)
            named = np.flatnonzero(batch.previous[row, at : at + len(ask)] >= 0)
            if not len(named) and question.kind == "lookup":
                # A job's name tells nothing token by token: what is meant is known once all is read.
                named = np.array([len(ask) - len(turn_ids)])
            if len(named) and answer[0] in self._numbers:
                batch.first[row, at + named[0] : at + len(ask)] = answer[0]
                if question.kind == "count":
                    batch.first[row, at + len(ask) : at + size] = _next_numbers(answer, self._numbers)
            start, end = at - base, at - base + size
            batch.branch[row, start:end] = 0 if conversation else index
            batch.weights[row, start : end - 1] = _ASKED
            batch.weights[row, start + len(ask) - 1 : end - 1] = weights
            batch.answers.append((row, start + len(ask) - 1, end - 1, question.kind))
            at += size
            if conversation:
                next_position += size

    def _trace(
        self, ids: list[int], newline: int, line: np.ndarray, previous: np.ndarray
    ) -> dict[tuple[int, int], int]:
        """Fill in both labels for a document; returns where each pair of tokens stood last."""
        seen: dict[tuple[int, int], int] = {}
        number, fresh = -1, []
        for at in range(1, len(ids)):
            if ids[at - 1] == newline:
                seen.update(fresh)
                fresh = []
                if ids[at] in self._numbers:
                    number = ids[at]
            line[at] = number
            if number >= 0 and ids[at] in self._telling:
                pair = (ids[at - 1], ids[at])
                previous[at] = seen.get(pair, -1)
                fresh.append((pair, number))
        seen.update(fresh)
        return seen

    def _reword(self, rng: Random, pattern: str) -> str:
        """Words that nobody has read before, here and there: what is cited is to be copied, not guessed."""
        if rng.random() < 0.4:
            return pattern
        words = []
        for word in pattern.split(" "):
            if rng.random() < 0.12:
                words.append(self._word(rng) + rng.choice(("", "", "", ",", ":")))
            words.append(self._word(rng) if word in _GLUE and rng.random() < 0.25 else word)
        if rng.random() < 0.2:
            words.append(self._word(rng))
        return " ".join(words)

    def _word(self, rng: Random) -> str:
        return "".join(rng.choices(self._pieces, k=rng.randint(1, 3)))

    def _lead(self, index: int, lead: str, conversation: bool) -> str:
        return self._chat.separator + self._chat.open("user") if conversation and index else lead

    def _stretched(self, rng: Random, ids: np.ndarray, newline: int) -> np.ndarray:
        """Positions with jumps between lines: distances of long documents at a short one's price."""
        steps = np.ones(len(ids), np.int64)
        steps[0] = 0
        starts = np.flatnonzero(ids[:-1] == newline) + 1
        room = self._reach - len(ids)
        if len(starts) and room > 0:
            extra = int(room * rng.random() ** 1.5)
            chosen = rng.choices(list(starts), k=rng.randint(1, 6))
            for start in chosen:
                steps[start] += extra // len(chosen)
        return np.cumsum(steps)


def _next_numbers(answer: list[int], numbers: set[int]) -> np.ndarray:
    """For each token of a count: the number that is listed next; -1 from the last one on."""
    labels = np.full(len(answer), -1, np.int64)
    listed = [at for at, token in enumerate(answer) if token in numbers]
    for at, following in pairwise(listed):
        labels[at:following] = answer[following]
    return labels


def _wordings() -> list[str]:
    """The words that all logs share, which tell no entry from another."""
    found = [p for k in phrases.KINDS for p in k.entries + k.kindred + k.by_object + k.by_person + k.by_place]
    found += phrases.TAILS + phrases.REPORTS + phrases.JOB_STEPS + phrases.COUNTS + ("Job 1-1/1:",)
    found += phrases.ANY_OBJECT + phrases.ANY_PERSON + phrases.TWO_KEYS + phrases.INTRODUCTIONS
    return [re.sub(r"\{.\}", "", text) for text in found]


def _weigh(tokenizer: Tokenizer, answer: list[int], question: Question) -> np.ndarray:
    """Decisions are an entry's number, a job's step, and what follows a full stop (another line or the end)."""
    weights = np.full(len(answer), _COPY, np.float32)
    if question.kind == "chat":
        return weights
    tokens = [tokenizer.id_to_token(token) for token in answer]
    for at, token in enumerate(tokens):
        begins = at == 0 or tokens[at - 1] == "Ċ" or (question.kind == "count" and token.isdigit())
        step = token.isdigit() and tokens[at - 1] in {"-", "/"}
        if begins or step:
            weights[at] = _DECISION
        elif tokens[at - 1] == ".":
            weights[at] = _GOES_ON if question.kind == "report" else _DECISION
        elif question.kind == "report" and ":" in tokens[max(0, at - _FOUND_BY) : at]:
            weights[at] = _FOUND
    if question.kind in {"lookup", "absent"}:
        weights[0] = _WHICH
    return weights
