"""Figures of the stages of a load, each by itself."""

from __future__ import annotations

from typing import Any

from servemark.harness.figures.frame import Window
from servemark.harness.figures.metrics import METRICS
from servemark.harness.figures.slo import parse_slo
from servemark.harness.figures.stages import by_stage
from servemark.harness.plan.arrivals import Poisson
from servemark.harness.plan.arrivals.varying import Stages
from servemark.harness.types import Record, WorkerReport
from servemark.results.known import stage_windows
from tests.frames import answer, at, failed, frame

STAGES = [Window(at(0), at(1000)), Window(at(1000), at(1000)), Window(at(1000), at(3000)), Window(at(3000), at(4000))]


def found(*records: Record, window: Window | None = None) -> dict[int, dict[str, Any]]:
    built = frame(*records)
    groups = by_stage(built, STAGES, window or Window(at(0), at(4000)), parse_slo("ttft=150ms"))
    return {group["by"]["stage"]: group["metrics"] for group in groups}


def test_a_request_belongs_to_the_stage_in_which_it_was_intended() -> None:
    """A stage of nothing has no row, and an edge belongs to what begins there."""
    slow = [answer(10 + i, 1000.0 + 400 * i, (200, 210)) for i in range(5)]
    stages = found(*(answer(i, 100.0 * i, (50, 60)) for i in range(10)), *slow)
    assert {number: metrics["ttft"]["n"] for number, metrics in stages.items()} == {0: 10, 2: 5}
    assert (stages[0]["ttft"]["p50"], stages[2]["ttft"]["p50"]) == (50, 200)
    assert (stages[0]["offered_rps"]["value"], stages[2]["offered_rps"]["value"]) == (10, 2.5)
    assert (stages[0]["goodput"]["value"], stages[2]["goodput"]["value"]) == (10, 0)


def test_tokens_count_where_they_came() -> None:
    """An answer that runs on into the next stage is part of what the server produced there."""
    stages = found(answer(0, 900.0, (50, 150, 250)), answer(1, 2000.0, (50, 60, 70)))
    assert stages[0]["output_tps"]["value"] == 1
    assert stages[2]["output_tps"]["value"] == 5 / 2
    assert stages[2]["error_rate"]["value"] == 0


def test_warm_up_and_failures_keep_their_meaning() -> None:
    early = [answer(i, 100.0 * i, phase="warmup") for i in range(5)]
    counted = [answer(5 + i, 500.0 + 100 * i) for i in range(5)]
    stages = found(*early, *counted, failed(10, 3000.0), answer(11, 3500.0), window=Window(at(500), at(3500)))
    assert stages[0]["ttft"]["n"] == 5
    assert stages[0]["offered_rps"]["value"] == 10  # five in the half second that counts
    assert stages[3]["error_rate"]["value"] == 0.5


def test_nothing_is_said_of_the_whole_run_nor_of_one_stage_alone() -> None:
    assert found(answer(0, 100.0), answer(1, 200.0)) == {}
    metrics = found(answer(0, 100.0), answer(1, 3200.0))[0]
    assert set(metrics) == {name for name, metric in METRICS.items() if metric.window != "run"}


REPORT = WorkerReport(
    worker=0, started_ns=at(0), started_wall_ns=0, ended_ns=at(4000), issued=1, schedule_finished=True,
    stop_reason="finished", late_jobs=0, max_late_job_ns=0, stalls=0, max_stall_ns=0, cpu_ns=0, wall_step_ns=0,
    reconnects=0, drained=True,
)  # fmt: skip
LOAD = Stages.model_validate({"stages": [{"rate": 2, "duration": "1500ms"}, {"rate": 4, "duration": "2s"}]})


def test_stages_begin_and_end_where_the_load_says() -> None:
    assert stage_windows(LOAD, REPORT) == (Window(at(0), at(1500)), Window(at(1500), at(3500)))


def test_other_loads_and_runs_without_a_report_have_none() -> None:
    assert stage_windows(Poisson(rate=2.0), REPORT) == ()
    assert stage_windows(LOAD, None) == ()


def test_at_most_32_of_them_the_largest() -> None:
    edges = [Window(at(100.0 * k), at(100.0 * (k + 1))) for k in range(40)]
    records = [answer(k, 100.0 * k + 10) for k in range(40)] + [answer(40, 3995.0)]
    groups = by_stage(frame(*records), edges, Window(at(0), at(4000)))
    assert [group["by"]["stage"] for group in groups] == [*range(31), 39]
