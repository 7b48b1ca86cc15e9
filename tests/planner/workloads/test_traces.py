from __future__ import annotations

import gzip
import itertools
import json
import os
import random
import tracemalloc
from pathlib import Path

import pytest

from planner.core import Request, Skipped
from planner.errors import WorkloadError
from planner.workloads import open_trace, open_workload, summarize

AZURE_2023 = (
    "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:15:50.9951690,396,109\n"
)
AZURE_2024 = (
    "TIMESTAMP,ContextTokens,GeneratedTokens\n"
    "2024-05-10 00:00:00.009930+00:00,2162,5\n"
    "2024-05-10 00:00:00+00:00,100,10\n"
    "2024-05-10 00:00:02+00:00,200,20\n"
)
BURST_1 = (
    "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
    "5,ChatGPT,472,18,490,Conversation log\n45,ChatGPT,1087,230,1317,Conversation log\n"
)
BURST_2 = (
    "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
    "19440110.0,1722ac82,43,GPT-4,906,446,1352,Conversation log\n19440161.0,d5983bf9,2,ChatGPT,36,29,65,API log\n"
)
MOONCAKE = "\n".join(
    json.dumps(row)
    for row in (
        {"timestamp": 0, "input_length": 6758, "output_length": 500, "hash_ids": [0, 1, 2]},
        {"timestamp": 3500, "input_length": 7322, "output_length": 490, "hash_ids": [0, 14]},
    )
)
PLAIN = "arrival,prompt_tokens,output_tokens\n10.5,100,20\n12,300.0,40\n"


def written(folder: Path, text: str, name: str = "trace.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (AZURE_2023, [(0.0, 374, 44), (4.314579, 396, 109)]),
        (AZURE_2024, [(0.0, 100, 10), (0.00993, 2162, 5), (2.0, 200, 20)]),
        (BURST_1, [(0.0, 472, 18), (40.0, 1087, 230)]),
        (BURST_2, [(0.0, 906, 446), (51.0, 36, 29)]),
        (MOONCAKE, [(0.0, 6758, 500), (3.5, 7322, 490)]),
        (PLAIN, [(0.0, 100, 20), (1.5, 300, 40)]),
    ],
    ids=["azure-2023", "azure-2024-out-of-order", "burstgpt", "burstgpt-sessions", "mooncake", "csv"],
)
def test_each_published_format_is_told_by_its_beginning(
    tmp_path: Path, text: str, expected: list[tuple[float, int, int]]
) -> None:
    requests = list(open_trace(written(tmp_path, text)))
    assert [(request.prompt_tokens, request.output_tokens) for request in requests] == [row[1:] for row in expected]
    assert [request.arrival for request in requests] == pytest.approx([row[0] for row in expected], abs=1e-6)


def test_mooncake_keeps_the_prefix_hashes(tmp_path: Path) -> None:
    workload = open_trace(written(tmp_path, MOONCAKE, "trace.jsonl"))
    assert [request.prefix_hashes for request in workload] == [(0, 1, 2), (0, 14)]
    assert summarize(workload).shared_prefix == pytest.approx(1 / 5)


def test_a_compressed_trace_reads_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv.gz"
    path.write_bytes(gzip.compress(PLAIN.encode()))
    assert list(open_trace(path)) == list(open_trace(written(tmp_path, PLAIN)))


def test_malformed_rows_are_counted_and_shown(tmp_path: Path) -> None:
    text = (
        BURST_1
        + 'x,ChatGPT,1,1,2,C\n46,ChatGPT,10\n47,ChatGPT,10,0,10,C\n48,ChatGPT,1.5,3,4,C\n"49,Chat\n50,C,7,8,15,C\n'
    )
    skipped = Skipped()
    kept = list(open_trace(written(tmp_path, text)).stream(skipped))
    assert [request.prompt_tokens for request in kept] == [472, 1087, 7]
    assert skipped.count == 5
    assert "row 4: could not convert" in skipped.examples[0]
    assert "row 5: it has 3 columns" in skipped.examples[1]
    assert "failed request" in skipped.examples[2]
    assert "no number of tokens" in skipped.examples[3]


def test_malformed_json_lines_are_counted_and_shown(tmp_path: Path) -> None:
    text = MOONCAKE + '\n{"timestamp": 1}\n[1]\n{broken\n{"timestamp": 2, "input_length": "a", "output_length": 1}\n'
    skipped = Skipped()
    assert len(list(open_trace(written(tmp_path, text, "trace.jsonl")).stream(skipped))) == 2
    assert skipped.count == 4
    assert "no 'input_length'" in skipped.examples[0]


def test_no_trace_at_all_names_what_is_known(tmp_path: Path) -> None:
    with pytest.raises(WorkloadError, match=r"no known trace.*Mooncake"):
        open_trace(written(tmp_path, "a,b\n1,2\n"))
    with pytest.raises(WorkloadError, match="No such file"):
        open_trace(tmp_path / "missing.csv")
    with pytest.raises(WorkloadError, match="no column 'TIMESTAMP'"):
        open_trace(written(tmp_path, PLAIN), "azure")


def test_a_row_far_out_of_order_is_skipped_and_a_near_one_put_in_its_place(tmp_path: Path) -> None:
    rows = [f"{at},10,10" for at in range(10_000)]
    rows[100], rows[200] = rows[200], rows[100]
    rows.append("3,10,10")
    skipped = Skipped()
    requests = list(
        open_trace(written(tmp_path, "arrival,prompt_tokens,output_tokens\n" + "\n".join(rows))).stream(skipped)
    )
    assert [request.arrival for request in requests] == list(range(10_000))
    assert skipped.count == 1
    assert "before rows that are far ahead" in skipped.examples[0]


def test_a_long_trace_is_read_in_bounded_memory(tmp_path: Path) -> None:
    path = tmp_path / "long.csv"
    with path.open("w") as file:
        file.write("arrival,prompt_tokens,output_tokens\n")
        file.writelines(f"{row / 10},{row % 900 + 1},{row % 70 + 1}\n" for row in range(60_000))
    peaks = []
    for rows in (10_000, 60_000):
        tracemalloc.start()
        for _ in itertools.islice(open_trace(path), rows):
            pass
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0]


def test_conversations_grow_with_each_answer_and_share_their_prefix(tmp_path: Path) -> None:
    turns = [
        {"from": "human", "value": "a" * 4000}, {"from": "gpt", "value": "b" * 400},
        {"from": "human", "value": "c" * 40}, {"from": "gpt", "value": "d" * 80},
    ]  # fmt: skip
    records = [{"id": "x", "conversations": turns}, {"id": "y"}, {"id": "z", "conversations": turns[:2]}]
    for name, text in (("a.json", json.dumps(records, indent=1)), ("b.jsonl", "\n".join(map(json.dumps, records)))):
        skipped = Skipped()
        workload = open_workload(written(tmp_path, text, name), rate=5.0, layout="sharegpt")
        requests = list(workload.stream(skipped))
        assert [(r.prompt_tokens, r.output_tokens) for r in requests] == [(1000, 100), (1110, 20), (1000, 100)]
        one, two, other = (request.prefix_hashes for request in requests)
        assert two[: len(one)] == one
        assert set(one).isdisjoint(other)
        assert skipped.count == 1
        assert requests[0].arrival == 0 < requests[1].arrival
        assert "estimated" in workload.source


def test_a_broken_conversation_file_says_where_it_ends(tmp_path: Path) -> None:
    skipped = Skipped()
    path = written(tmp_path, '[{"conversations": []}, {"conversations": [', "broken.json")
    assert list(open_workload(path).stream(skipped)) == []
    assert skipped.examples == ["row 2: the rest of the file is no JSON: Expecting value"]


@pytest.mark.skipif("PD_TRACES" not in os.environ, reason="set PD_TRACES to a folder with azure_llm_2023_conv.csv")
def test_the_azure_conversation_trace_is_whole() -> None:
    summary = summarize(open_trace(Path(os.environ["PD_TRACES"]) / "azure_llm_2023_conv.csv"))
    assert (summary.requests, summary.skipped.count) == (19_366, 0)
    assert summary.prompt.quantiles(0.5, 0.99) == [1020, 4142]


def test_random_bytes_never_break_a_reader(tmp_path: Path) -> None:
    rng = random.Random(5)
    path = tmp_path / "noise.csv"
    path.write_bytes(PLAIN.encode() + rng.randbytes(5_000))
    skipped = Skipped()
    assert all(isinstance(request, Request) for request in open_trace(path).stream(skipped))
    assert skipped.count > 0
