from __future__ import annotations

import re
import string
from random import Random

import pytest

from demos.training import phrases
from demos.training.logbook import (
    Document,
    Step,
    excerpt,
    held_out,
    make_document,
    make_questions,
    user_message,
)
from demos.training.vocabulary import Words, split_of

KINDS = ("lookup", "report", "count")
EVERY_KIND = {"lookup": 1.0, "report": 1.0, "count": 1.0, "absent": 1.0, "chat": 0.1}


@pytest.fixture(params=range(6))
def document(request: pytest.FixtureRequest) -> Document:
    seed = request.param
    return make_document(Random(seed), (80, 300, 1000)[seed % 3], ("train", "eval")[seed % 2])


def test_every_entry_begins_with_its_number_and_numbers_increase(document: Document) -> None:
    numbers = [entry.number for entry in document.entries]
    assert numbers == sorted(set(numbers))
    assert numbers[0] >= 100
    assert numbers[-1] <= 999
    for entry in document.entries:
        assert entry.text.startswith(f"{entry.number} ")
        assert document.text[slice(*entry.span)] == entry.text
        assert "{" not in entry.text
        assert all(entity.in_sentence in entry.text or entity.name in entry.text for entity in entry.entities)


def test_answers_quote_whole_lines_of_the_document(document: Document) -> None:
    lines = document.text.split("\n")
    questions = make_questions(Random(1), document, 40, EVERY_KIND)
    assert questions
    for question in questions:
        cited = [document.text[start:end] for start, end in question.evidence]
        assert set(cited) <= set(lines)
        match question.kind:
            case "lookup":
                assert [question.answer] == cited
            case "report":
                assert cited == sorted(cited)
                assert question.answer.split("\n") == [line.partition(" ")[2] for line in cited]
            case "count":
                assert cited == sorted(cited, reverse=True)


def test_an_excerpt_is_lines_of_the_document_that_are_alike() -> None:
    for seed in range(20):
        document = make_document(Random(seed), 3_000)
        part = excerpt(Random(seed), document, 300)
        rest = iter(document.text.split("\n"))
        assert all(line in rest for line in part.text.split("\n")), "in the document's order"
        assert 10 <= len(part.entries) <= 14
        assert all(part.text[slice(*entry.span)] == entry.text for entry in part.entries)
        about = [set.intersection(one.features, other.features) for one in part.entries for other in part.entries]
        chance = [set.intersection(one.features, two.features) for one in document.entries for two in document.entries]
        assert sum(map(len, about)) / len(about) > 1.5 * sum(map(len, chance)) / len(chance)
        for question in make_questions(Random(seed), part, 30, {"lookup": 1.0, "report": 1.0}):
            cited = [part.text[start:end] for start, end in question.evidence]
            if question.kind == "report":
                # Never of a job of which steps were left out.
                assert len(cited) == int(cited[-1].partition("/")[2].partition(" ")[0])


def test_the_steps_of_a_job_are_told_in_order_and_a_report_misses_none(document: Document) -> None:
    for name, entries in document.jobs().items():
        steps = [entry.step for entry in entries]
        assert [step and step.number for step in steps] == list(range(1, len(entries) + 1))
        assert {step and step.steps for step in steps} == {len(entries)}
        assert [entry.text for entry in entries] == [
            line for line in document.text.split("\n") if f"Job {name}-" in line
        ]
    for question in make_questions(Random(2), document, 20, {"report": 1.0}):
        (name,) = (name for name in document.jobs() if _asks_about(question.text, name))
        assert len(question.evidence) == document.text.count(f"Job {name}-")


def test_counts_miss_nothing(document: Document) -> None:
    for question in make_questions(Random(2), document, 20, {"count": 1.0}):
        (entity,) = (e for e in document.mentions() if _asks_about(question.text, e.in_sentence))
        mentioning = [entry for entry in reversed(document.entries) if entity.name in entry.text]
        assert question.answer.startswith(", ".join(str(entry.number) for entry in mentioning) + ": ")
        assert f": {len(mentioning)} entries mention" in question.answer


def test_a_lookup_has_one_answer(document: Document) -> None:
    for question in make_questions(Random(3), document, 30, {"lookup": 1.0}):
        steps = [e for e in document.entries if e.step and question.text in _about_step(e.step)]
        if steps:
            assert [entry.text for entry in steps] == [question.answer]
            continue
        named = [e for e in document.mentions() if _asks_about(question.text, e.name)]
        assert named
        fitting = [
            entry
            for entry in document.entries
            if all(entity in entry.entities for entity in named) and _kind_fits(question.text, entry.kind)
        ]
        assert [entry.text for entry in fitting] == [question.answer]


def test_what_is_absent_is_not_mentioned(document: Document) -> None:
    for entity in document.absent:
        assert entity.name not in document.text
    assert f"Job {document.absent_job}-" not in document.text


def test_equal_seeds_give_equal_data() -> None:
    def everything(seed: int) -> object:
        rng = Random(seed)
        document = make_document(rng, 400)
        return document.text, make_questions(rng, document, 10, EVERY_KIND)

    assert everything(7) == everything(7)
    assert everything(7) != everything(8)
    assert [c.messages for c in held_out("report", 500, 3, 1)] == [c.messages for c in held_out("report", 500, 3, 1)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tokens", [200, 1000])
def test_held_out_cases_are_what_was_asked_for(kind: str, tokens: int) -> None:
    cases = list(held_out(kind, tokens, 4, seed=5))
    assert len({case.messages[0]["content"] for case in cases}) == 4
    for case in cases:
        assert case.kind == kind
        content = case.messages[-1]["content"]
        cited = [content[start:end] for start, end in case.evidence]
        if kind == "lookup":
            assert cited == [case.answer]
        if kind == "report":
            assert "\n".join(line.partition(" ")[2] for line in cited) == case.answer
            assert len(cited) >= 4


def test_evaluation_uses_names_and_pairs_never_trained_on() -> None:
    train, unseen = (set(Words(split).first_names + Words(split).last_names) for split in ("train", "eval"))
    assert not train & unseen
    pairs: dict[str, set[str]] = {"train": set(), "eval": set()}
    for split, found in pairs.items():
        for seed in range(20):
            document = make_document(Random(seed), 600, split)
            found.update(entity.name for entity in document.mentions())
            found.update(document.jobs())
    assert not pairs["train"] & pairs["eval"]


def test_rewording_leaves_names_and_answers_alone() -> None:
    document = make_document(Random(4), 400, "train", lambda rng, pattern: f"{rng.choice('xyz')}ord, {pattern}")
    for entry in document.entries:
        assert "ord, " in entry.text
        assert all(entity.name in entry.text for entity in entry.entities)
    for question in make_questions(Random(5), document, 20, {"lookup": 1.0, "step": 1.0, "report": 1.0}):
        cited = [document.text[start:end] for start, end in question.evidence]
        lines = [line.partition(" ")[2] for line in cited] if question.kind == "report" else cited
        assert question.answer.split("\n") == lines
        assert "ord, " in question.answer
        assert "ord, " not in question.text


def test_names_of_few_parts_share_their_words() -> None:
    def things_with_one_noun(parts: float) -> float:
        found = []
        for seed in range(5):
            document = make_document(Random(seed), 1000, parts=parts)
            things = {e.roles["o"].name for e in document.entries if "o" in e.roles}
            found.append(len(things) / len({name.split()[1] for name in things}))
        return sum(found) / len(found)

    assert things_with_one_noun(0.12) > 1.5 * things_with_one_noun(0.7)


def test_a_question_for_a_step_is_a_lookup_of_that_step() -> None:
    document = make_document(Random(6), 400)
    for question in make_questions(Random(7), document, 20, {"step": 1.0}):
        (entry,) = (entry for entry in document.entries if entry.text == question.answer)
        assert entry.step is not None
        assert question.kind == "lookup"
        assert question.text in _about_step(entry.step)


def test_the_split_depends_on_nothing_but_the_word() -> None:
    # Written down, so that a change of the rule (which would move names between the sets) is noticed.
    assert [split_of(word, 5) for word in ("Wim", "Ada", "Okafor", "Emil")] == ["train", "train", "train", "eval"]


def test_patterns_name_only_known_roles() -> None:
    for kind in phrases.KINDS:
        entries = kind.entries + kind.held_out + kind.kindred
        for pattern in entries + kind.by_object + kind.by_person + kind.by_place:
            assert {field for _, field, _, _ in string.Formatter().parse(pattern) if field} <= set("pqoln")


@pytest.mark.parametrize("kind", phrases.KINDS, ids=lambda kind: kind.name)
def test_held_out_wordings_are_never_trained_on_but_all_of_their_words_are(kind: phrases.Kind) -> None:
    """In that sense: a model that learns from nothing cannot know otherwise that who sat down with somebody met him."""
    trained = kind.entries + kind.kindred
    assert not set(kind.held_out) & set(trained)
    assert set(re.findall(r"\w+", " ".join(kind.held_out))) <= set(re.findall(r"\w+", " ".join(trained)))


def test_a_user_message_is_the_document_and_then_the_question(document: Document) -> None:
    assert user_message(document, "Who?", "Read this.\n\n") == f"Read this.\n\n{document.text}\n\nWho?"


def _about_step(step: Step) -> set[str]:
    return {pattern.format(x=step.job, n=step.number) for pattern in phrases.JOB_STEPS}


def _asks_about(text: str, name: str) -> bool:
    at = text.find(name)
    return at >= 0 and (at + len(name) == len(text) or not text[at + len(name)].isalpha())


def _kind_fits(question: str, kind: phrases.Kind) -> bool:
    """Whether a question is worded for this kind of entry, or for none in particular."""

    def matches(pattern: str) -> bool:
        before, _, after = pattern.partition("{")
        return question.startswith(before) and question.endswith(after.partition("}")[2])

    every = [p for k in phrases.KINDS for p in k.by_object + k.by_person + k.by_place if matches(p)]
    own = kind.by_object + kind.by_person + kind.by_place
    return not every or any(matches(pattern) for pattern in own)
