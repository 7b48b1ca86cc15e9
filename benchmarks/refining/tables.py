"""Rows to tables: what is averaged over what, and which aims it meets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.refining.quality import ORACLE, OURS, RATIOS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.refining.quality import Judged, Kept

#: Least relative exact match of `OURS` on logbooks, by kind and ratio.
AIMS = {("lookup", 0.25): 0.98, ("lookup", 0.1): 0.95, ("report", 0.25): 0.95}
#: Of count questions the least share kept whole by the guard, of lookups the largest, at this ratio.
COUNT_WHOLE, LOOKUP_WHOLE, GUARD_RATIO = 0.95, 0.05, 0.25


@dataclass(frozen=True, slots=True)
class Aim:
    name: str
    value: str
    reached: bool

    def line(self) -> str:
        return f"aim: {self.name}: {self.value}, {'reached' if self.reached else 'MISSED'}"


@dataclass(frozen=True, slots=True)
class Cell:
    """One method on the cases of one source and kind, at one ratio."""

    cases: int
    kept: float
    recall: float
    #: Shares of the cases answered exactly.
    right: float
    right_full: float
    #: Of those right with the full prompt, the share still right; None where none was.
    retained: float | None

    @property
    def relative(self) -> float | None:
        """Relative exact match: right ÷ right with the full prompt."""
        return self.right / self.right_full if self.right_full else None


Cells = dict[tuple[str, str, float, str], Cell]


def cells(rows: Sequence[Kept]) -> Cells:
    """By (source, kind, ratio, method), each beside the full prompt on the same cases: a slow method may have fewer."""
    groups: dict[tuple[str, str, float, str], list[Kept]] = {}
    for row in rows:
        groups.setdefault((row.source, row.kind, row.ratio, row.method), []).append(row)
    whole = {(row.source, row.kind, row.length, row.case): row.right for row in rows if row.method == "full"}
    found = {}
    for (source, kind, ratio, method), members in groups.items():
        full = [whole[row.source, row.kind, row.length, row.case] for row in members]
        count = len(members)
        still = [row.right for row, before in zip(members, full, strict=True) if before]
        found[source, kind, ratio, method] = Cell(
            cases=count,
            kept=sum(row.kept for row in members) / count,
            recall=sum(row.recall for row in members) / count,
            right=sum(row.right for row in members) / count,
            right_full=sum(full) / count,
            retained=sum(still) / len(still) if still else None,
        )
    return found


def table(found: Cells, source: str) -> Iterator[str]:
    for kind in dict.fromkeys(kind for where, kind, _, _ in found if where == source):
        whole = found[source, kind, 1.0, "full"]
        yield f"{source}, {kind}: {whole.cases} cases, {whole.right:.0%} right with the full prompt"
        yield f"  {'':<18}" + "".join(f" |{f'keep {ratio:.0%}':^34}" for ratio in RATIOS)
        yield f"  {'scorer':<18}" + " |  kept recall  right relat. still" * len(RATIOS)
        methods = dict.fromkeys(method for where, what, _, method in found if (where, what) == (source, kind))
        for method in methods:
            if method != "full":
                row = [found[source, kind, ratio, method] for ratio in RATIOS]
                name = method if row[0].cases == whole.cases else f"{method} ({row[0].cases})"
                yield f"  {name:<18}" + "".join(f" | {_cell(cell)}" for cell in row)


def _cell(cell: Cell) -> str:
    return (
        f"{cell.kept:5.0%} {cell.recall:6.0%} {cell.right:6.0%} {_share(cell.relative):>6} {_share(cell.retained):>6}"
    )


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"


def quality_table(found: Cells, source: str) -> dict[str, Any]:
    """What `pd-plan solve --quality` reads: by keep ratio, of the kinds of question in logbooks, the relative exact
    match of the one that suffers most; never above 1."""
    points = []
    for ratio in RATIOS:
        kinds = [
            cell for (where, _, at, method), cell in found.items() if (where, at, method) == ("logbook", ratio, OURS)
        ]
        known = [cell.relative for cell in kinds if cell.relative is not None]
        if known:
            points.append((ratio, round(min(1.0, *known), 3)))
    return {"source": source, "points": points}


def answer_aims(found: Cells) -> Iterator[Aim]:
    for (kind, ratio), least in AIMS.items():
        ours = found["logbook", kind, ratio, OURS]
        reached = ours.relative is not None and ours.relative >= least
        said = _share(ours.relative) if ours.right_full else "nothing is right with the full prompt, so not known"
        yield Aim(f"{kind} at {ratio:.0%}, exact match relative to the full prompt ≥ {least:.0%}", said, reached)
    for kind in dict.fromkeys(kind for source, kind, _, _ in found if source == "logbook"):
        for ratio in RATIOS:
            ours = found["logbook", kind, ratio, OURS]
            others = {
                method: cell
                for (source, what, at, method), cell in found.items()
                if (source, what, at) == ("logbook", kind, ratio)
                and method not in {ORACLE, "attention", "answer-attention", OURS}
            }
            better = [name for name, cell in others.items() if (cell.right, cell.recall) > (ours.right, ours.recall)]
            said = f"not above {', '.join(better)}" if better else "none is above it"
            yield Aim(f"{kind} at {ratio:.0%}, {OURS} is not below any other scorer", said, not better)


def guard_table(judged: Sequence[Judged]) -> Iterator[str]:
    yield "guard: share of the prompts kept whole, and why not refined"
    groups: dict[tuple[str, str, float], list[Judged]] = {}
    for row in judged:
        groups.setdefault((row.source, row.kind, row.ratio), []).append(row)
    for (source, kind, ratio), rows in groups.items():
        words = {word: sum(row.word == word for row in rows) for word in dict.fromkeys(row.word for row in rows)}
        said = ", ".join(f"{word} {count}" for word, count in words.items())
        yield f"  {source:<8} {kind:<7} keep {ratio:4.0%}: {_whole(rows):5.0%} of {len(rows)} ({said})"


def guard_aims(judged: Sequence[Judged]) -> Iterator[Aim]:
    at = [row for row in judged if (row.source, row.ratio) == ("logbook", GUARD_RATIO)]
    counts = _whole([row for row in at if row.kind == "count"])
    lookups = _whole([row for row in at if row.kind == "lookup"])
    yield Aim(f"counts kept whole ≥ {COUNT_WHOLE:.0%}", f"{counts:.0%}", counts >= COUNT_WHOLE)
    yield Aim(f"lookups kept whole ≤ {LOOKUP_WHOLE:.0%}", f"{lookups:.0%}", lookups <= LOOKUP_WHOLE)


def _whole(rows: Sequence[Judged]) -> float:
    return sum(row.whole for row in rows) / len(rows)
