"""How well the device's agreement with the cloud's first tokens predicts that it would go on otherwise than the cloud.

Over held-out questions about logbooks and the bundled pair of models. The cloud's greedy answer is the truth. The
device reads the prompt and the answer's tokens; where it would have said each of them itself from token k on, its
continuation after a grant of k is right, else wrong: with greedy decoding, one pass over the answer tells that for
every k.

roc     the area under the curve of "agreement with the latest tokens is low" as a test for "the continuation is wrong",
        over all questions and grants; 0.5 is chance. In brackets the 5th to 95th percentile over resampled questions.
gating  what `SplitSettings.min_agreement` does from a grant of 12 on: how many continuations are right, and how many
        tokens the cloud gives. Beside it a plain grant that costs the cloud as much, without any gate.

The gate is the SDK's own (`device_sdk.generation.agreement`). Run: `python -m benchmarks.agreement [--quick]
[--questions N] [--lengths N …] [--json FILE]`.
Definitions: docs/metrics.md; how we measure: benchmarks/METHODOLOGY.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from demos.side_by_side.hardware import machine
from demos.training.logbook import QuestionKind, held_out
from device_sdk.generation.agreement import Agreement
from model_runtime.core import Chunk, Engine, Logits, Message
from model_runtime.loading import load_engine

MODELS = Path(__file__).parent.parent / "demos" / "models"
KINDS: tuple[QuestionKind, ...] = ("lookup", "report")
GRANTS = (4, 6, 8, 12, 16, 24, 32, 48)
GRANT, CAP = 12, 64
LEAST = (0.5, 0.75, 0.9, 1.0)
LONGEST, CHUNK = 120, 512
RESAMPLES = 400


@dataclass(frozen=True)
class Compared:
    """One answer of the cloud: whether the device would have said each of its tokens itself, the end included."""

    kind: str
    prompt_tokens: int
    agreed: list[bool]

    def right(self, grant: int) -> bool:
        """Whether the device, after `grant` tokens, says what the cloud would have said."""
        return all(self.agreed[grant:])

    def latest(self, grant: int) -> float | None:
        """Its agreement after `grant` tokens, as the gate sees it."""
        agreement = Agreement()
        agreement.note(self.agreed[:grant])
        return agreement.latest

    def gated(self, least: float) -> int:
        """Tokens from the cloud under a gate."""
        grant = min(GRANT, len(self.agreed))
        while grant < min(CAP, len(self.agreed)):
            latest = self.latest(grant)
            if latest is None or latest >= least:
                break
            grant += 1
        return grant


@dataclass(frozen=True)
class Gate:
    min_agreement: float | None
    right: float
    cloud_tokens: float
    #: The share that is right with a plain grant of as many tokens.
    right_without: float


def answer(engine: Engine, prompt: Sequence[int]) -> list[int]:
    """Greedy, the end included."""
    sequence, said = engine.open(), list[int]()
    try:
        feed = list(prompt)
        while len(said) < LONGEST:
            for start in range(0, len(feed), CHUNK):
                (result,) = engine.forward([Chunk(sequence, feed[start : start + CHUNK], Logits.LAST)])
            said.append(int(np.argmax(result.logits[-1])))
            if said[-1] in engine.tokenizer.eos_ids:
                break
            feed = said[-1:]
        return said
    finally:
        engine.close(sequence)


def compare(engine: Engine, prompt: Sequence[int], said: Sequence[int]) -> list[bool]:
    """Whether the engine would have said each token of the answer, after those before it."""
    sequence, own = engine.open(), list[int]()
    tokens = [*prompt, *said[:-1]]
    try:
        for start in range(0, len(tokens), CHUNK):
            part = tokens[start : start + CHUNK]
            (result,) = engine.forward([Chunk(sequence, part, Logits.ALL)])
            own += [int(token) for token in np.argmax(result.logits, axis=-1)]
    finally:
        engine.close(sequence)
    return [mine == theirs for mine, theirs in zip(own[len(prompt) - 1 :], said, strict=True)]


def measure(cases: int, lengths: Sequence[int]) -> list[Compared]:
    found: list[Compared] = []
    with load_engine(MODELS / "cloud", threads=2) as cloud, load_engine(MODELS / "device", threads=2) as device:
        for kind in KINDS:
            for length in lengths:
                for case in held_out(kind, length, cases, 3):
                    messages = [Message(role=one["role"], content=one["content"]) for one in case.messages]
                    prompt = cloud.tokenizer.render_chat(messages)
                    said = answer(cloud, prompt)
                    found.append(Compared(kind, len(prompt), compare(device, prompt, said)))
    return found


def points(compared: Sequence[Compared]) -> list[tuple[float, bool]]:
    """(agreement, whether the continuation is wrong) wherever there is something to continue and something to judge."""
    pairs = [(one, grant) for one in compared for grant in GRANTS if grant < len(one.agreed)]
    return [(latest, not one.right(grant)) for one, grant in pairs if (latest := one.latest(grant)) is not None]


def area(scored: Sequence[tuple[float, bool]]) -> float | None:
    """The chance that a wrong continuation has the lower agreement, ties counted half (Mann and Whitney)."""
    wrong = np.array([score for score, bad in scored if bad])
    right = np.array([score for score, bad in scored if not bad])
    if not len(wrong) or not len(right):
        return None
    lower = (wrong[:, None] < right[None, :]).mean()
    return float(lower + 0.5 * (wrong[:, None] == right[None, :]).mean())


def spread(compared: Sequence[Compared]) -> tuple[float, float] | None:
    """5th and 95th percentile of the area over questions drawn again with replacement."""
    random = np.random.default_rng(0)
    drawn = (random.integers(0, len(compared), len(compared)) for _ in range(RESAMPLES))
    areas = [found for picks in drawn if (found := area(points([compared[pick] for pick in picks]))) is not None]
    return (float(np.quantile(areas, 0.05)), float(np.quantile(areas, 0.95))) if areas else None


def gates(compared: Sequence[Compared]) -> list[Gate]:
    rows: list[Gate] = []
    for least in (None, *LEAST):
        grants = [min(GRANT, len(one.agreed)) if least is None else one.gated(least) for one in compared]
        mean = statistics.fmean(grants)
        right = statistics.fmean(one.right(grant) for one, grant in zip(compared, grants, strict=True))
        rows.append(Gate(least, right, mean, _plain(compared, mean)))
    return rows


def _plain(compared: Sequence[Compared], mean: float) -> float:
    """The share right with the same grant for all that costs `mean` tokens, between the two whole grants around it."""
    costs = [statistics.fmean(min(grant, len(one.agreed)) for one in compared) for grant in range(CAP + 1)]
    rights = [statistics.fmean(one.right(grant) for one in compared) for grant in range(CAP + 1)]
    return float(np.interp(mean, costs, rights))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few questions: under a minute")
    parser.add_argument("--questions", type=int, default=40, help="of each kind and length (default %(default)s)")
    parser.add_argument("--lengths", type=int, nargs="+", default=[500, 1_000, 2_000], help="tokens of the prompts")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure there")
    options = parser.parse_args()
    compared = measure(6, (500,)) if options.quick else measure(options.questions, options.lengths)
    result: dict[str, object] = {"machine": machine(), "quick": options.quick}
    for kind in (*KINDS, "all"):
        chosen = [one for one in compared if kind in (one.kind, "all")]
        auc, around, rows = area(points(chosen)), spread(chosen), gates(chosen)
        result[kind] = {"questions": len(chosen), "auc": auc, "spread": around, "gates": [asdict(row) for row in rows]}
        shown = "not known: all right, or all wrong" if auc is None else f"{auc:.3f}"
        between = "" if around is None else f" ({around[0]:.3f} to {around[1]:.3f})"
        judged = f"{len(chosen)} questions, {len(points(chosen))} hand-overs"
        print(f"{kind}: {judged}; area under the ROC curve {shown}{between}")
        print("  min_agreement   right   cloud tokens   right with a plain grant of as many")
        for row in rows:
            least = "none" if row.min_agreement is None else f"{row.min_agreement:.2f}"
            print(f"  {least:>13}   {row.right:5.1%}   {row.cloud_tokens:12.1f}   {row.right_without:5.1%}")
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
