"""Questions with known evidence, for `pd-cloud calibrate` of the bundled models: they follow no other wording.

python -m demos.training.probes > probes.jsonl
pd-cloud calibrate demos/models/cloud --probes probes.jsonl

Lookups and reports rest on a few lines, counts on all. From the words of the training split, so that what is
measured on held-out logbooks stays held out. Some lookups are over entries between the paragraphs of a licence, as
real prose looks different to a head.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from demos.training.logbook import make_document, make_questions

if TYPE_CHECKING:
    from collections.abc import Iterator

    from demos.training.logbook import AnyKind, Document, Question

LENGTHS = (500, 1000, 2000, 3000, 4000)
_KINDS: tuple[AnyKind, ...] = ("lookup", "report", "count")
_PROSE = Path(__file__).parents[2] / "LICENSE"
#: Of the logbook whose entries stand in prose, in tokens.
_PLANTED = 300


def probes(count: int, seed: int) -> Iterator[dict[str, Any]]:
    """`count` of each kind for each length, half as many in prose."""
    for length in LENGTHS:
        for kind in _KINDS:
            for number in range(count):
                rng = Random(f"probes/{seed}/{length}/{kind}/{number}")
                yield _in_logbook(rng, length, kind)
                if kind != "report" and number % 2:
                    yield _in_prose(rng, length, kind)


def _in_logbook(rng: Random, length: int, kind: AnyKind) -> dict[str, Any]:
    document, question = _ask(rng, length, kind)
    return _probe(document.text, question, kind, question.evidence)


def _in_prose(rng: Random, length: int, kind: AnyKind) -> dict[str, Any]:
    document, question = _ask(rng, _PLANTED, kind)
    paragraphs = _PROSE.read_text("utf-8").split("\n\n")
    # Seven characters of it are about five tokens of the bundled tokenizers, which know few such words.
    wanted = max(2, round(len(paragraphs) * min(1.0, 1.4 * length / sum(map(len, paragraphs)))))
    first = rng.randrange(len(paragraphs) - wanted + 1)
    prose = paragraphs[first : first + wanted]
    places = sorted(rng.randrange(len(prose) + 1) for _ in document.entries)
    text, evidence = "", []
    for number, paragraph in enumerate([*prose, ""]):
        for entry, place in zip(document.entries, places, strict=True):
            if place == number:
                if entry.span in question.evidence:
                    evidence.append((len(text), len(text) + len(entry.text)))
                text += f"{entry.text}\n\n"
        text += f"{paragraph}\n\n"
    return _probe(text.rstrip("\n"), question, kind, evidence)


def _ask(rng: Random, length: int, kind: AnyKind) -> tuple[Document, Question]:
    while True:
        document = make_document(rng, length, "train")
        questions = make_questions(rng, document, 1, {kind: 1.0})
        if questions:
            return document, questions[0]


def _probe(text: str, question: Question, kind: AnyKind, evidence: Any) -> dict[str, Any]:
    return {"text": text, "question": question.text, "evidence": [] if kind == "count" else sorted(evidence)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=16, help="of each kind and length (default 16)")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    for probe in probes(given.count, given.seed):
        print(json.dumps(probe))


if __name__ == "__main__":
    main()
