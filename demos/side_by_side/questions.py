"""What the demo asks: bundled questions over held-out logbooks with exact answers, or the caller's own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from demos.side_by_side.errors import UsageError
from demos.training.logbook import held_out

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from demos.side_by_side.options import Options
    from demos.training.logbook import Case, QuestionKind
    from model_runtime.core import Message

#: Reports have 4 to 14 lines. Of so many the first of about this length is asked for: long enough to hand over, short
#: enough to watch three times.
_CANDIDATES = 6
_LINES = 5


@dataclass(frozen=True, slots=True)
class Question:
    #: What is asked, without the document.
    text: str
    #: `lookup`, `report`, or `own`.
    kind: str
    messages: tuple[Message, ...]
    #: The exact answer; None where nobody knows it.
    expected: str | None = None

    @property
    def document(self) -> str:
        """The document that is asked about; empty where the prompt is the question alone."""
        return self.messages[-1]["content"].removesuffix(self.text).strip()

    def correct(self, answer: str) -> bool | None:
        return None if self.expected is None else answer.strip() == self.expected.strip()


@dataclass(frozen=True, slots=True)
class Asked:
    """A bundled question to generate: its kind and about how many tokens the prompt has."""

    kind: QuestionKind
    prompt_tokens: int


#: Two minutes of questions on the default hardware.
DEFAULT = (
    Asked("lookup", 520),
    Asked("report", 1_050),
    Asked("lookup", 2_050),
    Asked("report", 2_050),
    Asked("lookup", 3_600),
)
QUICK = (Asked("lookup", 520), Asked("lookup", 2_050))


def choose(options: Options) -> list[Question]:
    """What the options ask for. Raises UsageError."""
    if options.prompt_file is not None or options.question is not None:
        return [own(options.prompt_file, options.question, options.seed)]
    return bundled(QUICK if options.quick else DEFAULT, options.seed)


def bundled(asked: Sequence[Asked], seed: int) -> list[Question]:
    """The same questions for the same seed, over documents that the bundled models were never trained on."""
    return [_question(_pick(item, seed)) for item in asked]


def own(prompt_file: Path | None, question: str | None, seed: int) -> Question:
    """The caller's document and question. A document alone is the whole prompt; a question alone is asked about a
    bundled logbook. Raises UsageError where the file cannot be read."""
    if prompt_file is None:
        if question is None:
            raise UsageError("neither a prompt file nor a question was given")
        document = _question(_pick(Asked("lookup", 1_050), seed)).document
    else:
        document = _read(prompt_file)
    text = question or document.strip().rsplit("\n", 1)[-1]
    content = f"{document.strip()}\n\n{question}" if question else document.strip()
    return Question(text, "own", ({"role": "user", "content": content},))


def _pick(asked: Asked, seed: int) -> Case:
    count = _CANDIDATES if asked.kind == "report" else 1
    candidates = held_out(asked.kind, asked.prompt_tokens, count, seed)
    return min(candidates, key=lambda case: abs(len(case.evidence) - _LINES))


def _question(case: Case) -> Question:
    content = case.messages[-1]["content"]
    messages: tuple[Message, ...] = tuple({"role": m["role"], "content": m["content"]} for m in case.messages)
    return Question(content.rsplit("\n\n", 1)[-1], case.kind, messages, case.answer)


def _read(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--prompt-file {path} cannot be read as UTF-8 text: {error}") from None
    if not text.strip():
        raise UsageError(f"--prompt-file {path} is empty; it should hold the document to ask about")
    return text
