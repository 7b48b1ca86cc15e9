"""Training batches: one document and many questions, each question seeing the document and itself alone.

A document's tokens cost most; asked in parallel branches, dozens of questions share them, and every branch is exactly
what evaluation shows: one document, one question. In a conversation the branches see one another instead.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import numpy as np
from tokenizers import Tokenizer

from demos.training import phrases
from demos.training.logbook import make_document, make_questions

if TYPE_CHECKING:
    from demos.training.chat import ChatFormat
    from demos.training.logbook import AnyKind, Question
    from demos.training.vocabulary import Split

QUESTION_WEIGHTS: dict[AnyKind, float] = {
    "lookup": 4.0, "report": 0.8, "count": 1.5, "step": 2.5, "absent": 0.3, "chat": 0.04,
}  # fmt: skip
# Loss weights: which entry to cite and whether to go on decide an answer; the rest is copying.
_DECISION, _COPY, _ASKED = 3.0, 1.0, 0.1


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
    answers: list[tuple[int, int, int, str]]
    """Row, start, end (of the tokens that predict the answer, within the questions' part) and kind."""


class Encoder:
    """Text to ids; with variants in which known words fall into pieces, as unseen words do at evaluation."""

    def __init__(self, tokenizer_file: Path, variants: int, seed: int) -> None:
        text = tokenizer_file.read_text()
        self.whole = Tokenizer.from_str(text)
        rng = Random(seed)
        self._variants = [Tokenizer.from_str(_without_words(text, rng)) for _ in range(variants)]

    def pick(self, rng: Random, split: Split) -> Tokenizer:
        return rng.choice(self._variants) if split == "train" and rng.random() < 0.6 else self.whole


def _without_words(tokenizer_json: str, rng: Random) -> str:
    data = json.loads(tokenizer_json)
    model = data["model"]
    share = rng.uniform(0.2, 0.9)
    gone = {t for t in model["vocab"] if len(t) > 3 and not t.isdigit() and rng.random() < share}
    model["vocab"] = {token: index for token, index in model["vocab"].items() if token not in gone}
    model["merges"] = [m for m in model["merges"] if not gone & {m[0], m[1], m[0] + m[1]}]
    return json.dumps(data)


class BatchMaker:
    def __init__(self, encoder: Encoder, chat: ChatFormat, reach: int) -> None:
        self._encoder = encoder
        self._chat = chat
        self._reach = reach
        """The longest distance that positions are stretched to."""
        self._vocabulary = encoder.whole.get_vocab_size()

    def make(self, rng: Random, shape: Shape, rows: int, split: Split = "train", repeats: float = 0.0,
             stretch: float = 0.5) -> Batch:  # fmt: skip
        batch = Batch(
            ids=np.zeros((rows, shape.total), np.int64),
            positions=np.zeros((rows, shape.total), np.int64),
            document_length=np.zeros(rows, np.int64),
            branch=np.full((rows, shape.questions), -1, np.int64),
            weights=np.zeros((rows, shape.questions), np.float32),
            answers=[],
        )
        for row in range(rows):
            if split == "train" and rng.random() < repeats:
                self._repeat(rng, shape, batch, row)
            else:
                self._logbook(rng, shape, batch, row, split, stretch)
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

    def _logbook(self, rng: Random, shape: Shape, batch: Batch, row: int, split: Split, stretch: float) -> None:
        chat, tokenizer = self._chat, self._encoder.pick(rng, split)

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
        while True:
            document = make_document(rng, target, split)
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
        positions = self._stretched(rng, np.array(prompt), encode("\n")[0]) if rng.random() < stretch else np.arange(
            len(prompt)
        )  # fmt: skip
        batch.positions[row, : len(prompt)] = positions
        base = at = shape.document
        next_position = int(positions[-1]) + 1
        questions = make_questions(rng, document, max(4, shape.questions // 24), QUESTION_WEIGHTS)
        asked = encode_all([self._lead(i, lead, conversation) + q.text + turn for i, q in enumerate(questions)])
        answered = encode_all([q.answer + chat.end for q in questions])
        for index, question in enumerate(questions):
            ask, answer = asked[index], answered[index]
            size = len(ask) + len(answer)
            if at + size > shape.total:
                continue
            batch.ids[row, at : at + size] = ask + answer
            batch.positions[row, at : at + size] = np.arange(next_position, next_position + size)
            start, end = at - base, at - base + size
            batch.branch[row, start:end] = 0 if conversation else index
            batch.weights[row, start : end - 1] = _ASKED
            batch.weights[row, start + len(ask) - 1 : end - 1] = _weigh(tokenizer, answer, question)
            batch.answers.append((row, start + len(ask) - 1, end - 1, question.kind))
            at += size
            if conversation:
                next_position += size

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


def _weigh(tokenizer: Tokenizer, answer: list[int], question: Question) -> np.ndarray:
    """Decisions are an entry's number, and what follows a full stop (another line or the end)."""
    weights = np.full(len(answer), _COPY, np.float32)
    if question.kind == "chat":
        return weights
    tokens = [tokenizer.id_to_token(token) for token in answer]
    for at, token in enumerate(tokens):
        begins = at == 0 or tokens[at - 1] == "Ċ" or (question.kind == "count" and token.isdigit())
        if begins or tokens[at - 1] == ".":
            weights[at] = _DECISION
    return weights
