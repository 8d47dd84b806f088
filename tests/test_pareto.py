"""The Pareto front: more is better in both figures. And where a sweep, a matrix and a search show it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servemark.dashboards.matrix import render_matrix
from servemark.dashboards.matrix import table_text as matrix_text
from servemark.dashboards.search import money, table_text
from servemark.dashboards.search_page import render_search
from servemark.dashboards.sweep import render_sweep
from servemark.dashboards.sweep import table_text as sweep_text
from servemark.harness.figures.pareto import front
from servemark.results.curves import curves, pareto
from servemark.results.matrix import Entry, of_run
from servemark.results.search import Index

POINTS = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), max_size=25)


def dominates(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return one != other and one[0] >= other[0] and one[1] >= other[1]


@given(POINTS)
def test_on_the_front_is_who_is_dominated_by_nobody(points: list[tuple[float, float]]) -> None:
    wanted = {place for place, own in enumerate(points) if not any(dominates(other, own) for other in points)}
    assert set(front(points)) == wanted


@given(POINTS)
def test_along_the_front_one_figure_rises_and_the_other_falls(points: list[tuple[float, float]]) -> None:
    along = [points[place] for place in front(points)]
    assert along == sorted(along, key=lambda point: (point[0], -point[1]))
    assert [y for _, y in along] == sorted((y for _, y in along), reverse=True)


@given(POINTS, st.floats(0.01, 100), st.floats(0.01, 100))
def test_units_do_not_matter(points: list[tuple[float, float]], a: float, b: float) -> None:
    assert front([(x * a, y * b) for x, y in points]) == front(points)


def test_a_front_by_hand() -> None:
    assert front([(1, 5), (2, 4), (2, 3), (3, 1), (0, 5), (3, 1)]) == [0, 1, 3, 5]
    assert front([]) == []


# --- in a sweep, a matrix and a search


def cell(load: float, tpot_ms: float, per_gpu: float | None, state: str = "valid", **facts: Any) -> dict[str, Any]:
    figures = {"output_tps": 4 * (per_gpu or 100), "tpot_p50_ms": tpot_ms, "tps_user_p50": 1000 / tpot_ms}
    figures |= {"ttft_p99_ms": 300.0, "goodput": load, "e2e_mean_ms": 100.0}
    if per_gpu is not None:
        figures |= {"output_tps_per_gpu": per_gpu, "mbu": 0.461, "mfu": 0.0612, "mbu_measured": 0.53}
        figures |= {"usd_per_1m_output": 0.842, "usd_per_1m_output_slo": 1.21, "joules_per_output_token": 0.618}
    known = {"id": f"p{load:g}", "engine": "e", "workload": "chat", "load": f"rate={load:g}", "folder": f"p{load:g}"}
    return {**known, "settings": {"rate": load}, "repeat": 1, "state": state, "figures": figures, **facts}


CELLS = [
    cell(1, 8, 100),
    cell(2, 10, 250),
    cell(4, 12.5, 240),  # slower than the one before, and less
    cell(8, 20, 400),
    cell(16, 25, 9000, "invalid"),
]
COLUMNS = ("tok/s/GPU", "MBU", "measured", "MFU", "$/1M out", "at the SLO", "J/token")


def charts(page: str) -> list[dict[str, Any]]:
    found: dict[str, dict[str, Any]] = json.loads(page.partition('id="figures">')[2].partition("</script>")[0])
    return list(found.values())


def test_the_front_of_a_sweep_joins_its_best_valid_points() -> None:
    assert [point.load for point in pareto(curves(CELLS))["chat"]] == [8, 2, 1]
    (chart,) = [each for each in charts(render_sweep({"cells": CELLS})) if each["data"][0]["name"] == "Pareto front"]
    assert chart["data"][0]["x"] == [50, 100, 125]
    assert chart["data"][0]["y"] == [400, 250, 100]
    assert chart["layout"]["xaxis"]["title"]["text"] == "tok/s per user: 1 / TPOT p50"
    assert chart["layout"]["yaxis"]["title"]["text"] == "output tok/s per GPU"
    assert {trace["name"] for trace in chart["data"]} >= {"Pareto front", "INVALID"}


def test_engines_of_a_matrix_share_a_front_and_workloads_do_not() -> None:
    others = [cell(2, 9, 260, engine="f"), cell(8, 30, 380, engine="f"), cell(8, 5, 900, workload="rag")]
    best = pareto(curves([*CELLS, *others]))
    assert [(point.cells[0]["engine"], point.load) for point in best["chat"]] == [("e", 8), ("f", 2), ("e", 1)]
    drawn = [trace for chart in charts(render_matrix({"cells": [*CELLS, *others]})) for trace in chart["data"]]
    fronts = {trace["name"]: trace["y"] for trace in drawn if trace["name"].startswith("Pareto front")}
    assert fronts == {"Pareto front, chat": [400, 260, 100], "Pareto front, rag": [900]}


@pytest.mark.parametrize(("said", "page"), [(sweep_text, render_sweep), (matrix_text, render_matrix)])
def test_points_show_what_is_known_of_their_hardware(said: Any, page: Any) -> None:
    table = said({"cells": CELLS})
    heads = next(line for line in table.splitlines() if "MBU" in line)
    assert all(label in heads for label in COLUMNS)
    row = next(line for line in table.splitlines() if "46.1 %" in line)
    assert all(each in row for each in ("100", "46.1 %", "53.0 %", "6.1 %", "$0.842", "$1.21", "0.618"))
    assert max(map(len, table.splitlines())) <= 120
    shown = page({"cells": CELLS}).partition("<script")[0]
    assert all(f">{label}</th>" in shown for label in COLUMNS)
    assert ">$0.842</td>" in shown


@pytest.mark.parametrize(("said", "page"), [(sweep_text, render_sweep), (matrix_text, render_matrix)])
def test_where_nothing_is_known_of_the_hardware_nothing_is_shown(said: Any, page: Any) -> None:
    cells = [cell(load, tpot_ms, None) for load, tpot_ms in ((1, 8), (2, 10), (4, 20))]
    assert "MBU" not in said({"cells": cells})
    body = page({"cells": cells})
    assert ">MBU</th>" not in body
    assert "Pareto" not in body.partition("<script>")[0]
    if page is render_sweep:
        assert "Throughput against tok/s per user" in body


def test_a_column_is_there_where_any_point_has_its_figure() -> None:
    alone = cell(1, 8, None)
    alone["figures"]["mbu"] = 0.2
    table = sweep_text({"cells": [alone, cell(2, 9, None)]})
    assert "MBU" in table
    assert not any(label in table for label in ("J/token", "$/1M", "MFU"))


def test_the_index_takes_the_figures_from_the_runs_summary() -> None:
    entry = Entry(id="a", engine="e", workload="w", load="rate=1", repeat=1, digest="")
    found = of_run(entry, {"summary": {"mbu": 0.4, "usd_per_1m_output_slo": 1.5, "joules_per_output_token": "x"}})
    assert found.figures["mbu"] == 0.4
    assert found.figures["usd_per_1m_output_slo"] == 1.5
    assert found.figures["joules_per_output_token"] is None
    assert "mfu" not in found.figures


def test_a_search_tells_what_its_answer_makes_of_the_gpus() -> None:
    figures = {"output_tps_per_gpu": 261.0, "usd_per_1m_output_slo": 1.21, "mbu": 0.461, "ttft_p99_ms": 300.0}
    run = {"id": "r", "load": 4.0, "state": "counts", "figures": figures, "folder": "r"}
    found = Index(name="n", digest="d", seed=1, created="2026-11-21T10:00:00+00:00").to_json()
    found |= {"runs": [run], "answer": {"kind": "above", "load": 4.0}}
    found["points"] = [{"load": 4.0, "state": "meets", "share": {"good": 9, "requests": 9, "effective": 9}}]
    said = money(found)
    assert said == "261 output tok/s per GPU, $1.21 per 1M output tokens of requests that met the SLO, MBU 46.1 %"
    shown = render_search(found).partition("<script")[0]
    assert said in shown
    assert ">$1.21</td>" in shown
    assert max(map(len, table_text(found).splitlines())) <= 120
    found["economics"] = {"output_tps_per_gpu": 262.0}
    assert money(found).startswith("262 output tok/s per GPU, $1.21")  # what was worked out once is not said twice
