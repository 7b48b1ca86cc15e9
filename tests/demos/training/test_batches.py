"""What training shows: checked by reading it back as text."""

from __future__ import annotations

from pathlib import Path
from random import Random

import numpy as np
import pytest

from demos.training.batches import BatchMaker, Encoder, Mix, Shape
from demos.training.chat import FORMATS

TOKENIZER = Path(__file__).parents[3] / "demos" / "models" / "device" / "tokenizer.json"
SHAPE = Shape(512, 512)


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder(TOKENIZER, variants=2, seed=1)


@pytest.mark.parametrize(
    "mix",
    [
        Mix(0, 0, 0),
        Mix(0, 1, 0),
        Mix(0, 0, 1),
        Mix(0, 0, 0, reworded=1),
        Mix(0, 0, 0, alike=1),
        Mix(0, 0, 0, refined=1),
    ],
    ids=["plain", "stretched", "pieces", "reworded", "alike", "refined"],
)
def test_answers_say_what_the_document_says(encoder: Encoder, mix: Mix) -> None:
    maker, read = BatchMaker(encoder, FORMATS["chatml"], 4400), encoder.whole.decode
    found = set()
    for seed in range(8):
        batch = maker.make(Random(seed), SHAPE, 1, "train", mix)
        document = read(batch.ids[0, : batch.document_length[0]].tolist()) + "."
        for row, start, end, kind in batch.answers:
            said = batch.ids[row, SHAPE.document + start + 1 : SHAPE.document + end + 1].tolist()
            answer = read(said)
            assert said[-1] == encoder.whole.token_to_id("<|im_end|>")
            if kind in {"lookup", "report"}:
                # Also where words fall into pieces: read back by the whole tokenizer, they are the same words.
                assert all(line in document for line in answer.split("\n"))
                found.add(kind)
            weights = batch.weights[row, start:end]
            assert (weights > 0).all()
            # The first token decides a lookup: nothing of it counts more.
            assert kind != "lookup" or weights[0] == weights.max() > np.median(weights)
    assert found == {"lookup", "report"}


def test_brief_lookups_end_with_the_number_that_they_decide(encoder: Encoder) -> None:
    maker = BatchMaker(encoder, FORMATS["chatml"], 4400)
    batch = maker.make(Random(7), SHAPE, 1, "train", Mix(0, 0, 0, brief=1))
    document = encoder.whole.decode(batch.ids[0, : batch.document_length[0]].tolist())
    lookups = [(start, end) for _, start, end, kind in batch.answers if kind == "lookup"]
    assert len(lookups) > 5
    for start, end in lookups:
        assert end - start == 1
        number = encoder.whole.decode([int(batch.ids[0, SHAPE.document + end])])
        assert f"\n{number} " in document
        assert batch.weights[0, start] == batch.weights.max()
        assert batch.weights[0, end] == 0 or batch.branch[0, end] != batch.branch[0, start]


def test_rewording_changes_what_is_between_the_names(encoder: Encoder) -> None:
    maker = BatchMaker(encoder, FORMATS["chatml"], 4400)

    def document(mix: Mix) -> set[str]:
        batch = maker.make(Random(3), SHAPE, 1, "train", mix)
        return set(encoder.whole.decode(batch.ids[0, : batch.document_length[0]].tolist()).split())

    plain, reworded = document(Mix(0, 0, 0)), document(Mix(0, 0, 0, 1))
    assert len([word for word in reworded - plain if word.strip(",:.").islower()]) > 10


def test_a_lookup_by_step_is_told_which_line_once_it_is_asked(encoder: Encoder) -> None:
    """A job's name tells nothing token by token, so that no hint would come of its words."""
    maker, told = BatchMaker(encoder, FORMATS["chatml"], 4400), []
    for seed in range(4):
        batch = maker.make(Random(seed), SHAPE, 1, "train")
        for row, start, end, kind in batch.answers:
            ids = batch.ids[row, SHAPE.document : SHAPE.document + end + 1].tolist()
            if kind == "lookup" and " step " in encoder.whole.decode(ids[max(0, start - 20) : start]):
                told.append(batch.first[row, SHAPE.document + start] == ids[start + 1])
    assert told
    assert all(told)
