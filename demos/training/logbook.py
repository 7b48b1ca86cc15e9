"""Site logbooks with questions whose exact answers are known: the data the bundled models are trained and
measured on. Everything follows from the random generator passed in; nothing here needs more than Python."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from random import Random
from typing import TYPE_CHECKING, Literal

from demos.training import phrases
from demos.training.vocabulary import Split, Words

if TYPE_CHECKING:
    from collections.abc import Iterator

QuestionKind = Literal["lookup", "report", "count"]
# Training also asks for single steps of jobs (lookups that are hard), for what is absent, and chats a little.
AnyKind = Literal["lookup", "report", "count", "step", "absent", "chat"]
EntityType = Literal["person", "object", "place"]
Reword = Callable[[Random, str], str]

# Measured with the bundled tokenizer: what an entry of a log takes on average.
_TOKENS_PER_ENTRY = {"train": 24.7, "eval": 28.0}
# About half of the entries are steps of jobs, of so many steps each.
_JOB_SHARE, _JOB_STEPS = 0.5, (3, 10)
_REPORT_STEPS = 4
_REPORT_CHARACTERS = 720
_COUNTED = (2, 8)
# First words, and second ones, for each name of a kind.
PARTS = 0.7
# How often a lookup asks about what an entry names: things are what logs are searched for.
_ASKED_OFTEN = {"o": 3, "p": 1, "q": 1, "l": 1}


@dataclass(frozen=True, slots=True)
class Entity:
    type: EntityType
    name: str

    @property
    def in_sentence(self) -> str:
        return self.name if self.type == "person" else f"the {self.name}"


@dataclass(frozen=True, slots=True)
class Step:
    """Step `number` of the `steps` of job `job`, counted from 1."""

    job: str
    number: int
    steps: int

    @property
    def label(self) -> str:
        return f"Job {self.job}-{self.number}/{self.steps}" + (" done" if self.number == self.steps else "")


@dataclass(frozen=True, slots=True)
class Entry:
    number: int
    kind: phrases.Kind
    roles: dict[str, Entity]
    text: str
    span: tuple[int, int]
    """Where the entry's line stands in the document's text."""
    step: Step | None = None
    """The job that the entry belongs to; the line says it after its number."""

    @property
    def entities(self) -> set[Entity]:
        return set(self.roles.values())

    @property
    def features(self) -> set[str]:
        """What makes another entry like this one: the parts of its names, what happens, its job's name and step."""
        found = {part for entity in self.entities for part in entity.name.split()} | {self.kind.name}
        if self.step is not None:
            found |= {self.step.job[:1], self.step.job, f"step {self.step.number}"}
        return found


@dataclass(frozen=True, slots=True)
class Document:
    text: str
    entries: tuple[Entry, ...]
    absent: tuple[Entity, ...]
    """Entities like those of the document that it never mentions."""
    absent_job: str

    def jobs(self) -> dict[str, list[Entry]]:
        """Every job's entries, first step first."""
        found: dict[str, list[Entry]] = {}
        for entry in self.entries:
            if entry.step is not None:
                found.setdefault(entry.step.job, []).append(entry)
        return found

    def mentions(self) -> dict[Entity, list[Entry]]:
        found: dict[Entity, list[Entry]] = {}
        for entry in self.entries:
            for entity in entry.roles.values():
                listed = found.setdefault(entity, [])
                if not listed or listed[-1] is not entry:
                    listed.append(entry)
        return found


@dataclass(frozen=True, slots=True)
class Question:
    text: str
    answer: str
    kind: AnyKind
    evidence: tuple[tuple[int, int], ...]
    """Spans of the document's text that the answer rests on."""


@dataclass(frozen=True, slots=True)
class Case:
    """One held-out question, ready to be asked."""

    messages: list[dict[str, str]]
    answer: str
    kind: QuestionKind
    evidence: tuple[tuple[int, int], ...]
    """Spans of the user message's text that the answer rests on."""


def make_document(
    rng: Random, tokens_target: int, split: Split = "train", reword: Reword | None = None, parts: float = PARTS
) -> Document:
    """`reword` may change an entry's wording (its pattern) before the names are filled in. `parts`: how many first
    words, and second ones, there are for each name; with few, many names share one."""
    count = max(2, round((tokens_target - 8) / _TOKENS_PER_ENTRY[split]))
    words = _words_of(split)
    people, objects, places, absent = _cast(rng, words, count, parts)
    number = rng.randint(100, 999 - count) if count < 800 else 100
    largest_gap = max(1, min(9, (999 - number) // count))
    lines: list[str] = []
    entries: list[Entry] = []
    offset = 0

    def write(line: str) -> tuple[int, int]:
        nonlocal offset
        lines.append(line)
        span = (offset, offset + len(line))
        offset += len(line) + 1
        return span

    if rng.random() < 0.8:
        write(f"{rng.choice(phrases.TITLES)} {rng.randint(2, 99)}")
    steps, absent_job = _jobs(rng, words, count)
    for step in steps:
        if rng.random() < 0.06:
            write(rng.choice(phrases.FILLERS) if rng.random() < 0.5 else f"{rng.choice(phrases.HEADINGS)}:")
        kind = rng.choice(phrases.KINDS)
        pattern = rng.choice(_wordings(rng, kind, split))
        if reword is not None:
            pattern = reword(rng, pattern)
        # The lower of two draws: some people and places appear often, as in life, and most objects seldom.
        first, second = rng.sample(people, 2)
        roles = {"p": first, "q": second, "o": rng.choice(objects), "l": _often(rng, places)}
        roles = {role: entity for role, entity in roles.items() if f"{{{role}}}" in pattern}
        text = pattern.format(n=rng.randint(2, 99), **{role: entity.name for role, entity in roles.items()})
        if rng.random() < 0.3:
            text = f"{text} {rng.choice(phrases.TAILS)}"
        line = f"{number} {text}." if step is None else f"{number} {step.label}: {text}."
        entries.append(Entry(number, kind, roles, line, write(line), step))
        number += rng.randint(1, largest_gap)
    return Document("\n".join(lines), tuple(entries), tuple(absent), absent_job)


def excerpt(rng: Random, document: Document, tokens_target: int) -> Document:
    """What a refinement would keep of a document: one or two of its entries, often the job they belong to,
    and the lines most like them, in their order. Each is easily taken for another."""
    focus = rng.sample(document.entries, rng.randint(1, min(2, len(document.entries))))
    jobs = {entry.step.job for entry in focus if entry.step is not None and rng.random() < 0.6}
    numbers = {entry.number for entry in focus}
    about = set().union(*(entry.features for entry in focus))
    ranked = sorted(
        document.entries,
        key=lambda entry: (
            entry.number not in numbers,
            entry.step is None or entry.step.job not in jobs,
            -len(about & entry.features) - 2 * rng.random(),
        ),
    )
    room = max(2, round((tokens_target - 8) / _TOKENS_PER_ENTRY["train"]))
    chosen = {entry.number for entry in ranked[:room]}
    title, _, _ = document.text.partition("\n")
    lines = [title] if title != document.entries[0].text and rng.random() < 0.5 else []
    entries: list[Entry] = []
    offset = sum(len(line) + 1 for line in lines)
    for entry in document.entries:
        if entry.number in chosen:
            entries.append(replace(entry, span=(offset, offset + len(entry.text))))
            lines.append(entry.text)
            offset += len(entry.text) + 1
    return Document("\n".join(lines), tuple(entries), document.absent, document.absent_job)


def _jobs(rng: Random, words: Words, entries: int) -> tuple[list[Step | None], str]:
    """What step of a job each entry is, if any: jobs run side by side, each in order. And a job that is not there."""
    free = round(entries * _JOB_SHARE * rng.uniform(0.7, 1.3))
    sizes: list[int] = []
    while free >= 2:
        sizes.append(min(free, rng.randint(*_JOB_STEPS)))
        free -= sizes[-1]
    sizes = [size for size in sizes if size > 1]
    *names, absent = words.jobs(rng, len(sizes) + 1)
    places = sorted(rng.sample(range(entries), sum(sizes)))
    turns = [name for name, size in zip(names, sizes, strict=True) for _ in range(size)]
    rng.shuffle(turns)
    steps: list[Step | None] = [None] * entries
    done = dict.fromkeys(names, 0)
    for place, name in zip(places, turns, strict=True):
        done[name] += 1
        steps[place] = Step(name, done[name], turns.count(name))
    return steps, absent


def _wordings(rng: Random, kind: phrases.Kind, split: Split) -> tuple[str, ...]:
    if split == "train":
        return kind.entries + kind.kindred
    return kind.held_out if rng.random() < 0.25 else kind.entries


@cache
def _words_of(split: Split) -> Words:
    return Words(split)


def _often(rng: Random, entities: list[Entity]) -> Entity:
    return entities[min(rng.randrange(len(entities)), rng.randrange(len(entities)))]


def _cast(
    rng: Random, words: Words, entries: int, share: float
) -> tuple[list[Entity], list[Entity], list[Entity], list[Entity]]:
    """The document's people, objects and places. Name parts are reused, so that no part alone tells who is meant."""

    def draw(kind: EntityType, wanted: int, firsts: list[str], seconds: list[str]) -> list[Entity]:
        found: dict[str, None] = {}
        for _ in range(wanted * 20):
            pair = f"{rng.choice(firsts)} {rng.choice(seconds)}"
            if kind == "person" or words.pair_allowed(pair):
                found[pair] = None
            if len(found) == wanted:
                break
        return [Entity(kind, name) for name in found]

    def parts(wanted: int) -> int:
        return 2 + round(wanted * share)

    n_people, n_objects, n_places = 3 + entries // rng.randint(4, 7), 3 + entries // 2, 3 + entries // rng.randint(5, 8)
    people = draw(
        "person", n_people + 1,
        [words.first_name(rng) for _ in range(parts(n_people))],
        [words.last_name(rng) for _ in range(parts(n_people))],
    )  # fmt: skip
    objects = draw(
        "object", n_objects + 1,
        [words.adjective(rng) for _ in range(parts(n_objects))],
        [rng.choice(words.nouns) for _ in range(parts(n_objects))],
    )  # fmt: skip
    places = draw(
        "place", n_places + 1,
        [words.place_prefix(rng) for _ in range(parts(n_places))],
        [rng.choice(words.place_nouns) for _ in range(parts(n_places))],
    )  # fmt: skip
    while len(people) < 3:
        people = [Entity("person", f"{words.first_name(rng)} {words.last_name(rng)}") for _ in range(3)]
    if len(objects) < 2 or len(places) < 2:
        return _cast(rng, words, entries, share)
    return people[:-1], objects[:-1], places[:-1], [people[-1], objects[-1], places[-1]]


def make_questions(
    rng: Random, document: Document, count: int, weights: dict[AnyKind, float] | None = None
) -> list[Question]:
    """Up to `count` questions, drawn by the kinds' weights; fewer where a document cannot carry a kind."""
    weights = weights or {"lookup": 1.0, "report": 1.0, "count": 1.0}
    kinds, shares = list(weights), list(weights.values())
    asker = _Asker(rng, document)
    asked: dict[str, Question] = {}
    for _ in range(count * 4):
        question = asker.ask(rng.choices(kinds, shares)[0])
        if question is not None:
            asked[question.text] = question
        if len(asked) == count:
            break
    return list(asked.values())


class _Asker:
    """Asks about one document, only what it answers without doubt."""

    def __init__(self, rng: Random, document: Document) -> None:
        self._rng = rng
        self._document = document
        self._mentions = document.mentions()
        self._entities = list(self._mentions)
        self._jobs = document.jobs()
        self._counted = [e for e, lines in self._mentions.items() if _COUNTED[0] <= len(lines) <= _COUNTED[1]]

    def ask(self, kind: AnyKind) -> Question | None:
        match kind:
            case "lookup":
                return self._lookup()
            case "report":
                return self._report()
            case "count":
                return self._count()
            case "step":
                steps = [entry for entry in self._document.entries if entry.step is not None]
                return self._step(self._rng.choice(steps)) if steps else None
            case "absent":
                if self._rng.random() < 0.25:
                    job = self._document.absent_job
                    pattern = self._rng.choice(phrases.REPORTS)
                    return Question(pattern.format(x=job), phrases.ABSENT.format(x=f"job {job}"), "absent", ())
                entity = self._rng.choice(self._document.absent)
                pattern = self._rng.choice(phrases.COUNTS + self._open_questions(entity))
                answer = phrases.ABSENT.format(x=entity.in_sentence)
                x = entity.name if "the {x}" in pattern else entity.in_sentence
                return Question(pattern.format(x=x), answer, "absent", ())
            case "chat":
                text, answer = self._rng.choice(phrases.SMALL_TALK)
                return Question(text, answer, "chat", ())

    def _lookup(self) -> Question | None:
        rng = self._rng
        entry = rng.choice(self._document.entries)
        if entry.step is not None and rng.random() < 0.3:
            return self._step(entry)
        role = rng.choice([role for role in entry.roles for _ in range(_ASKED_OFTEN[role])])
        entity = entry.roles[role]
        lines = self._mentions[entity]
        way = rng.random()
        if way < 0.6:
            patterns = {"p": entry.kind.by_person, "o": entry.kind.by_object, "l": entry.kind.by_place}.get(role, ())
            if not patterns or sum(line.kind is entry.kind for line in lines) > 1:
                return None
            return self._cite(rng.choice(patterns).format(**{role: entity.name}), [entry], "lookup")
        if way < 0.75:
            other = rng.choice(list(entry.roles.values()))
            if other == entity or sum(other in line.entities for line in lines) > 1:
                return None
            text = rng.choice(phrases.TWO_KEYS).format(a=entity.in_sentence, b=other.in_sentence)
            return self._cite(text, [entry], "lookup")
        if len(lines) > 1:
            return None
        return self._cite(rng.choice(self._open_questions(entity)).format(x=entity.name), [entry], "lookup")

    def _step(self, entry: Entry) -> Question:
        assert entry.step is not None
        text = self._rng.choice(phrases.JOB_STEPS).format(x=entry.step.job, n=entry.step.number)
        return self._cite(text, [entry], "lookup")

    def _open_questions(self, entity: Entity) -> tuple[str, ...]:
        return {"person": phrases.ANY_PERSON, "object": phrases.ANY_OBJECT, "place": phrases.ANY_PLACE}[entity.type]

    def _report(self) -> Question | None:
        # An excerpt may hold a part of a job.
        whole = [
            job for job, entries in self._jobs.items() if entries[0].step and entries[0].step.steps == len(entries)
        ]
        if not whole:
            return None
        job = self._rng.choice(whole)
        entries = self._jobs[job]
        answer = "\n".join(entry.text.partition(" ")[2] for entry in entries)
        text = self._rng.choice(phrases.REPORTS).format(x=job)
        return Question(text, answer, "report", tuple(entry.span for entry in entries))

    def _count(self) -> Question | None:
        if not self._counted:
            return None
        entity = self._rng.choice(self._counted)
        lines = self._mentions[entity]
        # A causal model reads forwards, so a mention can know the one before it: the list runs backwards.
        numbers = ", ".join(str(line.number) for line in reversed(lines))
        text = self._rng.choice(phrases.COUNTS).format(x=entity.in_sentence)
        answer = f"{numbers}: {len(lines)} entries mention {entity.in_sentence}."
        return Question(text, answer, "count", tuple(line.span for line in reversed(lines)))

    @staticmethod
    def _cite(text: str, entries: list[Entry], kind: AnyKind) -> Question:
        return Question(text, "\n".join(e.text for e in entries), kind, tuple(e.span for e in entries))


def user_message(document: Document, question: str, introduction: str = "") -> str:
    return f"{introduction}{document.text}\n\n{question}"


def held_out(kind: QuestionKind, prompt_tokens: int, count: int, seed: int) -> Iterator[Case]:
    """`count` unseen questions over unseen documents of about `prompt_tokens` tokens, one document each."""
    made = 0
    attempt = 0
    while made < count:
        rng = Random(f"{seed}/{kind}/{prompt_tokens}/{attempt}")
        attempt += 1
        document = make_document(rng, prompt_tokens - 30, "eval")
        questions = make_questions(rng, document, 1, {kind: 1.0})
        if not questions or (kind == "report" and not _is_a_report(questions[0])):
            continue
        made += 1
        question = questions[0]
        message = {"role": "user", "content": user_message(document, question.text)}
        yield Case([message], question.answer, kind, question.evidence)


def _is_a_report(question: Question) -> bool:
    """Of several lines, else it were a lookup in disguise; and of at most some 250 tokens."""
    return len(question.evidence) >= _REPORT_STEPS and len(question.answer) <= _REPORT_CHARACTERS
