"""A comparison end to end on a small workload: figures, bounds, goodput, and every form of the report."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
import re

import pytest

from planner.cli.main import main
from planner.compare.bound import bound
from planner.compare.charts import Bar, Series, bars, distribution
from planner.compare.goodput import PRECISION, Tally, goodput
from planner.compare.html import as_html
from planner.compare.metrics import Spread, measure
from planner.compare.report import as_csv, as_json
from planner.compare.run import POLICIES, Comparison, Plan, compare
from planner.core import Request, Slo
from planner.errors import PlannerError
from planner.policies.alone import InCloud, OnDevice
from planner.policies.split import Split
from planner.simulator.outcome import Outcome, Outcomes
from tests.planner.simulator.worlds import hardware, phone, play, setup, workload

#: 24 requests, 4 per second.
REQUESTS = [Request(n / 4, 600 + 20 * (n % 10), 50) for n in range(24)]
PLAN = Plan(setup(queue_depth=10), Slo(1.0, 0.1), goodput_requests=16, played=6, jobs=1)


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    return compare(workload(REQUESTS), PLAN)


def test_the_json_has_what_readers_of_it_rely_on(comparison) -> None:
    result = json.loads(json.dumps(as_json(comparison), allow_nan=False))
    assert [each["name"] for each in result["policies"]] == list(POLICIES)
    for each in result["policies"]:
        assert set(each["ttft_ms"]) == {"mean", "p50", "p95", "p99"}
        assert {"p50", "p99"} <= set(each["max_gap_ms"])
        assert {
            "stall_share", "cloud_seconds_per_request", "cloud_tokens_per_request", "goodput_rps", "bound_ratio",
        } <= set(each)  # fmt: skip
    by_name = {each["name"]: each for each in result["policies"]}
    assert by_name["in-cloud"]["bound_ratio"] == by_name["in-cloud"]["goodput_ratio"] == 1.0
    assert by_name["on-device"]["cloud_seconds_per_request"] == 0
    assert by_name["on-device"]["goodput_unlimited"]
    assert by_name["split"]["played"] == 6
    assert by_name["in-cloud"]["played"] == 24


def test_the_split_is_between_the_two_it_is_made_of(comparison) -> None:
    by_name = {each.name: each for each in comparison.results}
    device, cloud, split = (by_name[name].metrics for name in ("on-device", "in-cloud", "split"))
    assert split.ttft_ms.mean < 0.4 * device.ttft_ms.mean
    assert split.cloud_tokens < 0.5 * cloud.cloud_tokens
    assert split.max_gap_ms.p99 < 100
    assert by_name["split"].goodput.rps > 1.5 * by_name["in-cloud"].goodput.rps
    assert by_name["split+refine"].metrics.cloud_tokens < split.cloud_tokens


def test_no_goodput_is_above_its_bound(comparison) -> None:
    for each in comparison.results:
        assert each.goodput.rps <= each.bound.rps


def test_the_same_comparison_twice_is_the_same(comparison) -> None:
    again = as_json(compare(workload(REQUESTS), dataclasses.replace(PLAN, policies=("in-cloud", "disco-s"))))
    first = {each["name"]: each for each in as_json(comparison)["policies"]}
    for each in again["policies"]:
        assert {**each, "cpu_seconds": 0} == {**first[each["name"]], "cpu_seconds": 0}


def test_csv_has_a_line_for_each_policy(comparison) -> None:
    lines = list(csv.DictReader(io.StringIO(as_csv(comparison))))
    assert [line["name"] for line in lines] == list(POLICIES)
    assert float(lines[5]["ttft_ms.p99"]) > 0


def test_the_report_needs_nothing_but_itself(comparison) -> None:
    page = as_html(comparison)
    assert page.count("<svg") == 4
    assert not re.search(r"<script|<link|<img|src=|@import|url\(", page)
    for name in POLICIES:
        assert f">{name}<" in page
    assert "simulated" in page.lower()


def test_charts_of_nothing_are_no_error() -> None:
    assert distribution([Series("a", [])], "ms") == ""
    assert "<svg" in bars([Bar("a", None, note="none")], "ms")
    assert "&lt;b&gt;" in bars([Bar("<b>", 0.0)], "ms")


def test_the_bound_is_the_bottleneck_law() -> None:
    """One instance, 20 ms per pass of 8 places, no cost of more sequences: 400 tokens/s; 10,000 prompt tokens/s."""
    chosen = setup(cloud=hardware(share=0.0))
    outcomes = play(chosen, [Request(5.0 * n, 1000, 41) for n in range(3)], InCloud()).outcomes
    mixed = bound(outcomes, chosen.cloud)
    assert mixed.rps == pytest.approx(1 / (0.1 + 40 * 0.020 / 8))
    apart = dataclasses.replace(chosen.cloud, instances=3, prefill_instances=2)
    assert bound(outcomes, apart).rps == pytest.approx(8 / (40 * 0.020))
    assert bound(outcomes, apart).resource == "decode places"
    wide = dataclasses.replace(chosen.cloud, instances=3, prefill_instances=1)
    assert bound(outcomes, wide).resource == "prefill time"
    assert math.isinf(bound(play(chosen, REQUESTS[:3], OnDevice()).outcomes, chosen.cloud).rps)


def test_goodput_is_where_the_promise_breaks() -> None:
    """At the rate found, the promise is kept; a step above it is not."""
    chosen = setup(queue_depth=20)
    slo, rate = Slo(0.5, 0.1), 4.0
    limit = bound(play(chosen, REQUESTS, InCloud()).outcomes, chosen.cloud).rps
    found = goodput(chosen, workload(REQUESTS), InCloud(), slo, requests=40, rate=rate, limit=limit)
    assert 0 < found.rps < found.bad_rps <= limit
    assert found.bad_rps - found.rps <= PRECISION * limit

    def kept(rps: float) -> bool:
        tally = Tally(slo, 24)
        crowded = [dataclasses.replace(each, arrival=each.arrival * rate / rps) for each in REQUESTS]
        from planner.simulator.world import simulate

        simulate(chosen, workload(crowded), InCloud(), watch=tally.note)
        return tally.good

    assert kept(found.rps)
    assert not kept(found.bad_rps) or found.bad_rps == limit


def test_a_promise_that_no_rate_keeps_is_no_goodput() -> None:
    slow = setup(device=phone(rate=100))
    found = goodput(slow, workload(REQUESTS), OnDevice(), Slo(1.0, 0.1), requests=24, rate=4.0, limit=math.inf)
    assert found.rps == 0


def test_a_tally_counts_what_never_came_as_late() -> None:
    tally = Tally(Slo(1.0, 0.1), 10)
    tally.note(0, Outcome(0.0, 10, 10, failed=1.0))
    assert tally.late == 1
    assert tally.hopeless


def test_answers_that_were_not_played_have_no_gap() -> None:
    outcomes = Outcomes()
    outcomes.add(Outcome(0.0, 10, 5, ttft=0.1, shown_seconds=0.4, max_gap=0.2, stalled=0.12))
    outcomes.add(Outcome(1.0, 10, 5, ttft=0.3))
    metrics = measure(outcomes, phone(prefill_watts=5.0, decode_watts=3.0))
    assert metrics.ttft_ms == Spread(200.0, 200.0, pytest.approx(290.0), pytest.approx(298.0))
    assert metrics.max_gap_ms.p99 == pytest.approx(200.0)
    assert metrics.tpot_ms.mean == pytest.approx(100.0)
    assert metrics.stall_share == pytest.approx(0.3)
    assert (metrics.answers, metrics.played, metrics.device_joules) == (2, 1, 0.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"policies": ("split", "best")}, "best"),
        ({"keep_ratio": 1.5}, "keep_ratio"),
        ({"disco_budget": 0.0}, "disco_budget"),
        ({"setup": setup(device=phone(kv_bytes_per_token=None))}, "kv_bytes_per_token"),
    ],
)
def test_what_cannot_be_compared_is_refused(change, message) -> None:
    with pytest.raises(PlannerError, match=message):
        dataclasses.replace(PLAN, **change)


def test_a_workload_without_a_rate_is_refused() -> None:
    with pytest.raises(PlannerError, match="at least two"):
        compare(workload(REQUESTS[:1]), PLAN)


GENERATED = ["--workload", "poisson:rate=4,requests=12,prompt=600,output=30,seed=1", "--cloud", "datacentre-h100-pcie"]


def test_the_command_prints_a_table_and_writes_files(tmp_path, capsys) -> None:
    page, lines = tmp_path / "r.html", tmp_path / "r.csv"
    few = ["--goodput-requests", "0", "--jobs", "1", "--policies", "on-device,split", "--played", "3"]
    assert main(["compare", *GENERATED, *few, "--html", str(page), "--csv", str(lines)]) == 0
    out = capsys.readouterr().out
    assert "split" in out
    assert "published" in out
    assert page.read_text().startswith("<!doctype html>")
    assert len(lines.read_text().splitlines()) == 3


def test_the_command_prints_one_json_object(capsys) -> None:
    few = ["--goodput-requests", "0", "--jobs", "1", "--policies", "in-cloud", "--json"]
    assert main(["compare", *GENERATED, *few]) == 0
    assert json.loads(capsys.readouterr().out)["policies"][0]["name"] == "in-cloud"


def test_simulate_writes_a_trace_and_refuses_an_answer_that_is_not_there(tmp_path, capsys) -> None:
    trace = tmp_path / "t.json"
    assert main(["simulate", *GENERATED, "--trace", "3", "--trace-out", str(trace), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["answers"] == 12
    assert {"ph", "ts", "pid", "tid", "name"} <= set(json.loads(trace.read_text())["traceEvents"][-1])
    assert main(["simulate", *GENERATED, "--trace", "99", "--trace-out", str(trace)]) == 2
    assert "no answer 99" in capsys.readouterr().err


def test_an_unknown_policy_is_bad_input(capsys) -> None:
    assert main(["compare", *GENERATED, "--policies", "magic"]) == 2
    assert "magic" in capsys.readouterr().err


def test_policies_can_share_a_cloud_with_a_played_share_of_none() -> None:
    metrics = measure(play(setup(played=0.0), REQUESTS, Split()).outcomes, phone())
    assert metrics.max_gap_ms is None
    assert metrics.ttft_ms is not None
