"""What prompt refinement keeps, what it costs, what it buys.

quality  for each scorer and keep ratio: the share of the answer's evidence that is kept, and exact match of the device
         model's answer on what is kept, beside that of the same model given the full prompt. Held-out logbooks of
         1,000 to 4,000 tokens, and real prose with planted entries. `served` is what the service keeps, with the floors
         of its calibration and the guard; the others fill the ratio. `oracle` knows where the evidence is: the most
         that whole lines within the ratio can do.
guard    how often count questions, which need the whole prompt, and lookups, which do not, are kept whole.
cost     cloud prefill with the attention tap ÷ without, side by side, on the bundled model and 105 M random parameters.
recipes  on request: evidence recall by rows, heads and pooling, on logbooks of the training split.
effect   device ready, grant, cloud busy by prompt length, on emulated hardware in virtual time.

Run: `python -m benchmarks.refinement [--quick] [--json FILE] [--plot FILE] [--quality-table FILE] [--llmlingua]
[--only PART …]`.
Definitions: docs/metrics.md, "Refinement"; how we measure: benchmarks/METHODOLOGY.md.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.refining import cost, effect, recipes, tables
from benchmarks.refining.cases import logbooks, prose
from benchmarks.refining.llmlingua import compared
from benchmarks.refining.plot import draw
from benchmarks.refining.quality import RATIOS, Cloud, Device, judged, kept_by
from cloud_service.refinement.factory import build_refinery
from demos.side_by_side.hardware import machine
from model_runtime.loading import load_engine

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.refining.cases import Case
    from benchmarks.refining.quality import Judged, Kept
    from demos.training.logbook import QuestionKind
    from model_runtime.core import Tokenizer

MODELS = Path(__file__).parent.parent / "demos" / "models"
CACHE = Path(__file__).parent.parent / "out" / "benchmarks"
PARTS = ("quality", "cost", "effect", "recipes")
KINDS: tuple[QuestionKind, ...] = ("lookup", "report", "count")


@dataclass(slots=True)
class Found:
    kept: list[Kept] = field(default_factory=list)
    judged: list[Judged] = field(default_factory=list)
    costs: list[cost.Cost] = field(default_factory=list)
    effects: list[effect.Effect] = field(default_factory=list)

    def aims(self) -> Iterator[tables.Aim]:
        if self.kept:
            yield from tables.answer_aims(tables.cells(self.kept))
            yield from tables.guard_aims(self.judged)
        for each in self.costs:
            name = f"{each.model} on {each.engine}, prefill with the tap ÷ without ≤ {cost.AIM}"
            yield tables.Aim(name, f"{each.median:.3f}", each.reached)
        for row in self.effects:
            if row.reached is not None:
                name = (
                    f"grant needed at {row.length:,} tokens, keep {row.ratio:.0%}: ≤ {effect.AIM:.0%} of that without"
                )
                yield tables.Aim(name, f"{row.refined.needed} of {row.without.needed}", row.reached)


def asked(tokenizer: Tokenizer, lengths: Sequence[int], count: int, seed: int) -> Iterator[Case]:
    for length in lengths:
        for kind in KINDS:
            yield from logbooks(tokenizer, kind, length, count, seed)
            if kind != "count":
                yield from prose(tokenizer, kind, length, max(1, count // 2), seed)


def quality(found: Found, options: argparse.Namespace) -> None:
    lengths, count = ((1_000,), 3) if options.quick else ((1_000, 2_000, 4_000), options.cases)
    model = options.cloud
    with (
        load_engine(model, threads=options.threads, max_sequences=1, tap_layers="all") as serving,
        load_engine(options.device, threads=options.threads, max_sequences=1) as small,
    ):
        refinery = build_refinery("answer-attention", str(model), serving.info)
        cloud, device = Cloud(serving, refinery), Device(small)
        context = min(serving.info.context_length, small.info.context_length)
        drawn = list(asked(serving.tokenizer, lengths, count, options.seed))
        # Answers, and a few tokens more for the rows of the answer that a scorer looks at.
        cases = [case for case in drawn if len(case.prompt.tokens) + len(case.answer) + 16 <= context]
        if len(cases) < len(drawn):
            print(f"{len(drawn) - len(cases)} of {len(drawn)} cases are longer than the models' context of {context}")
        answered = [case for case in cases if case.kind != "count"]
        for number, case in enumerate(cases, 1):
            scored = cloud.score(case)
            found.judged += judged(case, scored)
            if case.kind != "count":
                found.kept += kept_by(case, scored, device)
            print(f"\r{number} of {len(cases)} cases", end="", file=sys.stderr, flush=True)
        print(file=sys.stderr)
        if options.llmlingua:
            found.kept += compared(answered, model.parent, CACHE / "llmlingua", device, small.tokenizer)
        refinery.close()


def report(found: Found) -> list[str]:
    lines: list[str] = []
    if found.kept:
        cells = tables.cells(found.kept)
        lines.append(
            "kept: share of the tokens; recall: of the evidence; right: exact answers; relat.: ÷ right with the"
        )
        lines.append("full prompt; still: of those right with the full prompt, still right")
        for source in dict.fromkeys(row.source for row in found.kept):
            lines += tables.table(cells, source)
        lines += tables.guard_table(found.judged)
    if found.costs:
        lines.append(f"cost: cloud prefill of {cost.PROMPT_TOKENS:,} tokens")
        lines += (each.line() for each in found.costs)
    if found.effects:
        lines.append(
            f"effect: EMULATED {effect.DEVICE}, {effect.CLOUD}, {effect.LINK}; virtual time; without → refined"
        )
        lines.append(effect.HEAD)
        lines += (row.line() for row in found.effects)
    return lines


def parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few cases of 1,000 tokens: to see that it works")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure there")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw it, as PNG or SVG")
    parser.add_argument("--quality-table", type=Path, metavar="FILE", help="what pd-plan solve --quality reads")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS[:3], metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--llmlingua", action="store_true", help="compare LLMLingua too: makes its environment, 1.2 GB")
    parser.add_argument("--cases", type=int, default=30, help="of each kind and length (default 30)")
    parser.add_argument("--seed", type=int, default=2026, help="of the cases (default 2026)")
    parser.add_argument("--threads", type=int, default=1, help="of each engine (default 1)")
    parser.add_argument("--cloud", type=Path, default=MODELS / "cloud" / "model.onnx", help="the scoring model")
    parser.add_argument("--device", type=Path, default=MODELS / "device" / "model.onnx", help="the answering model")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    options = parsed(argv)
    found = Found()
    if "quality" in options.only:
        quality(found, options)
    if "cost" in options.only:
        found.costs += cost.measure(MODELS, CACHE, 2 if options.quick else 12, options.threads)
    if "effect" in options.only:
        found.effects += effect.measure(effect.LENGTHS[:2] if options.quick else effect.LENGTHS, RATIOS)
    if "recipes" in options.only:
        lengths, count = ((1_000,), 4) if options.quick else ((1_000, 2_000), options.cases)
        with load_engine(options.cloud, threads=options.threads, max_sequences=1, tap_layers="all") as serving:
            for line in recipes.measure(serving, lengths, count, options.seed):
                print(line, flush=True)
    print("\n".join(report(found)))
    aims = list(found.aims())
    print("\n".join(aim.line() for aim in aims))
    if options.json:
        result: dict[str, Any] = {"machine": machine(), "python": platform.python_version(), "quick": options.quick}
        result |= {"seed": options.seed, "aims": [asdict(aim) for aim in aims], **asdict(found)}
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(result) + "\n", encoding="utf-8")
    if options.quality_table and found.kept:
        source = f"python -m benchmarks.refinement --cases {options.cases} --seed {options.seed}, on logbooks"
        table = tables.quality_table(tables.cells(found.kept), source)
        options.quality_table.write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")
    if options.plot and found.kept and found.effects:
        draw(tables.cells(found.kept), found.effects, options.plot)
    return 0 if all(aim.reached for aim in aims) else 1


if __name__ == "__main__":
    sys.exit(main())
