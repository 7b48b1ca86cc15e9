"""Readers of published traces. Each reads a file from beginning to end, row by row, `.gz` as it is."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from planner.core import Request, Skipped, Workload
from planner.errors import WorkloadError
from planner.workloads.rows import BadRowError, Row, checked, in_order


@dataclass(frozen=True, slots=True)
class Table:
    """A format with columns: which of them tell what, by any of the names in use."""

    title: str
    time: tuple[str, ...]
    prompt: tuple[str, ...]
    output: tuple[str, ...]
    clock: Callable[[str], float]


def _instant(text: str) -> float:
    """Seconds; of a time without a zone, UTC."""
    stamp = datetime.fromisoformat(text)
    return (stamp if stamp.tzinfo else stamp.replace(tzinfo=UTC)).timestamp()


def _seconds_or_instant(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return _instant(text)


TABLES = {
    "azure": Table(
        "Azure LLM inference traces 2023 and 2024 (Patel et al., Splitwise, ISCA 2024; Stojkovic et al., HPCA 2025)",
        ("TIMESTAMP",), ("ContextTokens",), ("GeneratedTokens",), _instant,
    ),
    "burstgpt": Table(
        "BurstGPT (Wang et al., KDD 2025), with and without session columns",
        ("Timestamp",), ("Request tokens",), ("Response tokens",), float,
    ),
    "csv": Table(
        "any CSV with columns arrival, prompt_tokens and output_tokens; arrivals in seconds or as ISO 8601",
        ("arrival", "arrival_s", "timestamp", "time"), ("prompt_tokens", "input_tokens", "input_length"),
        ("output_tokens", "output_length"), _seconds_or_instant,
    ),
}  # fmt: skip

MOONCAKE = "Mooncake (Qin et al., FAST 2025): JSON lines with prefix hashes of blocks of 512 tokens"
SHAREGPT = "ShareGPT-like JSON: conversations without arrival times; one request per answer"

#: Format → what it is.
FORMATS = {name: table.title for name, table in TABLES.items()} | {"mooncake": MOONCAKE, "sharegpt": SHAREGPT}


def open_trace(path: str | Path, layout: str | None = None) -> Workload:
    """The trace in a file; `layout` is one of FORMATS but `sharegpt`, by default told by the file's beginning.

    Raises WorkloadError where the file cannot be read or has none of the known layouts.
    """
    path = Path(path)
    head = _head(path)
    layout = layout or _recognise(path, head)
    if layout == "mooncake":
        return Workload(
            path.stem, f"{path.name}, {MOONCAKE}", lambda skipped: in_order(_mooncake(path, skipped), skipped)
        )
    if layout not in TABLES:
        raise WorkloadError(f"no trace format {layout!r}; one of {', '.join(FORMATS)} is expected")
    table = TABLES[layout]
    columns = next(csv.reader([head]), [])
    indices = _indices(path, table, columns)

    def stream(skipped: Skipped) -> Iterator[Request]:
        return in_order(_table(path, table, indices, skipped), skipped)

    return Workload(path.stem, f"{path.name}, {table.title}", stream)


def recognise(path: str | Path) -> str:
    """The format of a trace, by its name in FORMATS. Raises WorkloadError."""
    return _recognise(Path(path), _head(Path(path)))


def opened(path: Path) -> IO[str]:
    """The file as text; `.gz` is unpacked as it is read. Raises WorkloadError."""
    try:
        raw = gzip.open(path) if path.suffix == ".gz" else path.open("rb")  # noqa: SIM115 - the caller closes it
    except OSError as error:
        raise WorkloadError(f"cannot read {path}: {error.strerror or error}") from None
    return io.TextIOWrapper(raw, encoding="utf-8-sig", errors="replace", newline="")


def _head(path: Path) -> str:
    try:
        with opened(path) as file:
            return file.readline(65_536).rstrip("\r\n")
    except (OSError, EOFError) as error:
        raise WorkloadError(f"cannot read {path}: {error}") from None


def _recognise(path: Path, head: str) -> str:
    if head.lstrip().startswith("["):
        return "sharegpt"
    if head.lstrip().startswith("{"):
        return "sharegpt" if '"conversations"' in head else "mooncake"
    columns = set(next(csv.reader([head]), []))
    for name, table in TABLES.items():
        if all(columns.intersection(names) for names in (table.time, table.prompt, table.output)):
            return name
    raise WorkloadError(
        f"{path} is no known trace: its first line is {head[:120]!r}. Known are "
        + "; ".join(f"{name} ({title})" for name, title in FORMATS.items())
    )


def _indices(path: Path, table: Table, columns: list[str]) -> tuple[int, int, int]:
    def index(names: tuple[str, ...]) -> int:
        for name in names:
            if name in columns:
                return columns.index(name)
        raise WorkloadError(f"{path} has no column {' or '.join(map(repr, names))}; its columns are {columns}")

    return index(table.time), index(table.prompt), index(table.output)


def _table(path: Path, table: Table, indices: tuple[int, int, int], skipped: Skipped) -> Iterator[Row]:
    time, prompt, output = indices
    with opened(path) as file:
        # Line by line, not through the file: a stray quotation mark must not swallow the rows after it.
        for number, line in enumerate(file, start=1):
            if number == 1 or not line.strip():
                continue
            try:
                cells = next(csv.reader([line.rstrip("\r\n")]))
                yield checked(Row(table.clock(cells[time]), number, _count(cells[prompt]), _count(cells[output])))
            except IndexError:
                skipped.note(number, f"it has {len(cells)} columns; {max(indices) + 1} are expected")
            except (BadRowError, ValueError, csv.Error, StopIteration) as error:
                skipped.note(number, str(error) or "it is no line of a table")


def _count(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        value = float(text)  # "374.0", as data frames write integers
        if value != int(value):
            raise BadRowError(f"{text!r} is no number of tokens") from None
        return int(value)


def _mooncake(path: Path, skipped: Skipped) -> Iterator[Row]:
    with opened(path) as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                yield checked(_mooncake_row(json.loads(line), number))
            except KeyError as error:
                skipped.note(number, f"it has no {error.args[0]!r}")
            except (BadRowError, ValueError, TypeError) as error:
                skipped.note(number, str(error))


def _mooncake_row(record: Mapping[str, object], number: int) -> Row:
    if not isinstance(record, dict):
        raise BadRowError("it is no JSON object")
    time, prompt, output = (record[key] for key in ("timestamp", "input_length", "output_length"))
    if not all(isinstance(value, int | float) for value in (time, prompt, output)):
        raise BadRowError("timestamp, input_length and output_length must be numbers")
    hashes = record.get("hash_ids", [])
    if not isinstance(hashes, list) or not all(isinstance(item, int) for item in hashes):
        raise BadRowError("hash_ids must be a list of integers")
    return Row(float(time) / 1000, number, int(prompt), int(output), tuple(hashes))
