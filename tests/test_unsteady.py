"""VALID runs that measured too little for a steady throughput: marked, and nothing leans on them unsaid."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from servemark.dashboards import matrix as matrix_page
from servemark.dashboards.search import money
from servemark.dashboards.search import table_text as search_text
from servemark.dashboards.search_page import render_search
from servemark.dashboards.sweep import render_sweep, table_text
from servemark.harness.matrix.cells import cells_of
from servemark.harness.matrix.forewarned import few_requests
from servemark.harness.matrix.plan import parse_plan
from servemark.results.curves import curves, knees, pareto
from servemark.results.matrix import Entry, of_run
from servemark.results.unsteady import unsteady

SHORT = {
    "code": "short_run",
    "severity": "warning",
    "message": "The steady window lasted 3.0 s.",
    "remedy": "Measure 10 s or more.",
}
FEW = {"code": "sample_size", "severity": "warning", "message": "60 requests certify none.", "remedy": "Measure 64."}
SAID = "short_run: The steady window lasted 3.0 s. Measure 10 s or more."


def run(*checks: dict[str, Any], clients: int | None = None, measured: int = 60, valid: bool = True) -> dict[str, Any]:
    load = {} if clients is None else {"concurrency": clients}
    figures = {
        "requests_measured": measured,
        "output_tps": 10.0,
        "mbu": 0.4,
        "usd_per_1m_output": 1.0,
        "ttft_p50_ms": 5,
    }
    return {
        "verdict": {"valid": valid, "checks": list(checks)},
        "workload": {"resolved": {"load": load}},
        "summary": figures,
    }


# --- which runs


def test_a_short_window_and_one_that_moves_make_throughput_unsteady() -> None:
    moved = {"code": "not_steady", "severity": "warning", "message": "Median TTFT moved.", "remedy": "Warm up longer."}
    assert unsteady(run(SHORT, moved)) == [SAID, "not_steady: Median TTFT moved. Warm up longer."]
    assert unsteady(run({**SHORT, "severity": "pass"})) == []
    assert unsteady(run({"code": "stalls", "severity": "warning", "message": "m", "remedy": "r"})) == []


def test_few_requests_matter_by_the_clients_that_share_them() -> None:
    """60 requests of one client take a minute and a half; those of 64 are over before a client has had its second."""
    assert unsteady(run(FEW, clients=1)) == []
    assert unsteady(run(FEW, clients=12)) == []
    assert unsteady(run(FEW, clients=64)) == [
        "sample_size: 60 requests of 64 clients were measured. Measure 320 requests or more."
    ]
    assert unsteady(run(clients=128, measured=200)) == [  # the check is content with 64 requests, whoever sent them
        "sample_size: 200 requests of 128 clients were measured. Measure 640 requests or more."
    ]
    assert unsteady(run(FEW)) == ["sample_size: 60 requests certify none. Measure 64."]  # an open loop has no clients


@pytest.mark.parametrize("odd", [{}, {"verdict": 3, "workload": [], "summary": "x"}, {"verdict": {"checks": [3, {}]}}])
def test_what_makes_no_sense_says_nothing(odd: dict[str, Any]) -> None:
    assert unsteady(odd) == []


def test_the_index_marks_the_figures_that_stand_on_throughput_and_no_median() -> None:
    entry = Entry(id="a", engine="e", workload="w", load="l", repeat=1, digest="d")
    found = of_run(entry, run(SHORT))
    assert (found.state, found.unsteady) == ("valid", [SAID])
    assert set(found.uncertain) == {"output_tps", "mbu", "usd_per_1m_output"}
    assert of_run(entry, run()).uncertain == []
    assert of_run(entry, run(SHORT, valid=False)).unsteady == []  # there is more against it than that


# --- what is shown


def cell(load: float, tps: float, ms: float, *said: str, engine: str = "e") -> dict[str, Any]:
    figures = {"output_tps": tps, "e2e_mean_ms": ms, "tpot_p50_ms": 1000 / load, "goodput": load, "mbu": 0.5}
    marked = ["output_tps", "goodput", "mbu"] if said else []
    return {
        "id": f"p{load:g}",
        "engine": engine,
        "workload": "chat",
        "load": f"concurrency={load:g}",
        "settings": {"concurrency": load},
        "repeat": 1,
        "state": "valid",
        "figures": figures | {"output_tps_per_gpu": tps},
        "unsteady": list(said),
        "uncertain": marked,
    }


STEADY = [cell(1, 50, 100), cell(4, 200, 105), cell(8, 390, 110), cell(16, 760, 120)]
SHAKY = [*STEADY[:3], cell(16, 400, 120, SAID)]


def sweep_of(cells: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {"kind": "sweep", "cells": list(cells)}


def test_a_row_of_unsteady_throughput_is_marked_and_says_why() -> None:
    table = table_text(sweep_of(SHAKY))
    lines = table.splitlines()
    (row,) = [line for line in lines if line.startswith("VALID*")]
    assert row.split()[:3] == ["VALID*", "16", "~400"]
    assert sum(line.startswith("VALID ") for line in lines) == 3
    assert [line.split()[-1] for line in lines if line.startswith("* ") and "%" in line] == ["%"]  # the hardware's row
    assert "~50.0 %" in table
    assert f"* concurrency=16: {SAID}" in table
    assert "may be far off" in table
    assert "*" not in table_text(sweep_of(STEADY))
    assert "~" not in table_text(sweep_of(STEADY))


def test_advice_does_not_lean_on_it() -> None:
    assert "go on to higher loads" in table_text(sweep_of(STEADY))
    table = " ".join(table_text(sweep_of(SHAKY)).split())
    assert "no knee up to concurrency 8: throughput is still worth its latency; measure the higher ones for" in table
    assert "left out, as throughput there is unsteady (*): concurrency 16" in table
    low = [cell(1, 50, 100, SAID), cell(4, 200, 100), cell(8, 210, 500), cell(16, 220, 900)]
    assert "begin" not in table_text(sweep_of(low))
    assert "measure the lower ones for longer" in " ".join(table_text(sweep_of(low)).split())


def test_a_knee_is_found_without_it() -> None:
    """As it was measured, 16 would be past a knee at 8; nothing says so."""
    wrong = [*STEADY[:3], cell(16, 400, 400)]
    assert [each["kind"] for each in knees(wrong)] == ["knee"]
    assert [(each["kind"], each["unsteady"]) for each in knees([*STEADY[:3], cell(16, 400, 400, SAID)])] == [
        ("above", [16.0])
    ]
    alone = [cell(load, load, 1, SAID) for load in (1, 2, 3)]
    assert "no knee: it takes 3 loads with a VALID run that has a steady throughput" in table_text(sweep_of(alone))


def test_no_pareto_front_goes_through_it() -> None:
    names = [point.name for point in pareto(curves([*STEADY, cell(32, 9_000, 100, SAID)]))["chat"]]
    assert "concurrency=32" not in names
    assert names


def test_the_page_says_it_too() -> None:
    shown, _, figures = render_sweep(sweep_of(SHAKY)).partition('id="figures">')
    assert "VALID*" in shown
    assert "Not steady" in shown
    assert SAID in shown
    assert "~400" in shown
    assert "circle-open" in figures
    assert "Not steady" not in render_sweep(sweep_of(STEADY)).partition('id="figures">')[0]


def test_a_matrix_says_it_of_each_cell() -> None:
    cells = [cell(16, 400, 1, SAID, engine="a"), {**cell(16, 500, 1, SAID, engine="b"), "id": "q"}, STEADY[0]]
    table = matrix_page.table_text({"cells": cells})
    assert table.count("VALID*") == 2
    assert f"* p16: {SAID}" in table
    assert f"* q: {SAID}" in table
    assert "~500" in table
    assert "Not steady" in matrix_page.render_matrix({"cells": cells}).partition('id="figures">')[0]


def test_text_of_others_stays_text() -> None:
    cells = [cell(16, 400, 1, "<script>alert(1)</script>\x1b[31m")]
    assert "\x1b" not in table_text(sweep_of(cells))
    for page in (render_sweep(sweep_of(cells)), matrix_page.render_matrix({"cells": cells})):
        assert "<script>alert" not in page
    assert isinstance(table_text({"cells": [{**STEADY[0], "unsteady": 7}]}), str)


def test_a_search_marks_what_stands_on_throughput_and_counts_its_requests_all_the_same() -> None:
    figures = {"output_tps": 400.0, "mbu": 0.5, "ttft_p99_ms": 90.0, "tpot_p50_ms": 9.0}
    runs = [
        {"id": "a", "load": 4.0, "state": "counts", "figures": figures},
        {"id": "b", "load": 8.0, "state": "counts", "figures": figures, "unsteady": [SAID]},
    ]
    share = {"requests": 100, "effective": 100, "good": 99, "low": 0.9, "high": 1.0}
    points = [{"load": run["load"], "state": "meets", "runs": 1, "share": share} for run in runs]
    found = {
        "runs": runs,
        "points": points,
        "asked": {"by": "rate"},
        "answer": {"kind": "above", "load": 8.0},
        "economics": {"output_tps_per_gpu": 400.0},
    }
    table = search_text(found)
    assert [line.split()[-1] for line in table.splitlines()[1:3]] == ["400", "~400"]
    assert f"~ 8 req/s: {SAID}" in table
    assert money(found).startswith("~400 output tok/s per GPU, ~MBU")
    page = render_search(found)
    assert "~50.0 %" in page
    assert SAID in page
    steady = {**found, "runs": [runs[0], {**runs[1], "unsteady": []}]}
    assert "~" not in search_text(steady) + money(steady)


# --- before it starts


def said(text: str) -> str | None:
    return few_requests(cells_of(parse_plan(text, "p.yaml", Path("."))))


PLAN = "version: 1\nengines: [{target: sim}]\nworkloads: [chat]\n"


def test_too_few_requests_are_told_before_it_starts() -> None:
    found = said(PLAN + "loads: [{concurrency: 4}, {concurrency: 16}, {concurrency: 64}]\ncommon: {requests: 60}\n")
    assert found == (
        "60 requests are fewer than 5 for each client at concurrency 16, 64: throughput, and what is worked out from "
        "it, will not be steady there; give --requests 320, or --duration in its place"
    )


@pytest.mark.parametrize(
    "loads",
    [
        "loads: [{concurrency: 4, requests: 20}]\n",
        "loads: [{concurrency: 64}]\n",  # for a time
        "loads: [{rate: 64, requests: 20}]\n",
    ],
)
def test_nothing_is_said_where_there_are_enough_or_nobody_can_know(loads: str) -> None:
    assert said(PLAN + loads) is None
