"""A saved run by folder or by id, ready to be shown: the figures of one that was cut short are worked out here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from servemark.harness.errors import BenchError, ResultUnusable
from servemark.results.asked_slo import slo_of_run
from servemark.results.recover import LoadedRun, load
from servemark.results.schema import PARTIAL, RUN_JSON, part

RUNS = Path("runs")


def open_run(name: str | None = None) -> LoadedRun:
    """`name` is a run's folder, or its id under ./runs; without it the newest one there. Raises ResultUnusable."""
    folder = _newest() if name is None else Path(name)
    if not folder.exists() and (RUNS / folder).is_dir():
        folder = RUNS / folder
    saved = load(folder)
    return saved if saved.finished else _worked_out(saved)


def _newest() -> Path:
    """By when it was written, or begun where it is not whole."""
    files = [path for name in (RUN_JSON, PARTIAL) for path in RUNS.glob(f"*/{name}")]
    if not files:
        raise ResultUnusable(f"there is no run in {RUNS.resolve()}; name a run's folder, or make one with `bench run`")
    return max(files, key=lambda path: path.stat().st_mtime_ns).parent


def _worked_out(saved: LoadedRun) -> LoadedRun:
    from servemark.harness.hardware.section import HardwareSection
    from servemark.results.evaluate import measured
    from servemark.results.reworked import reworked

    try:
        slo = slo_of_run(saved.run)
    except (TypeError, ValueError):  # the file may be anybody's
        slo = None
    found = measured(saved.frame(), saved.server_samples(), slo)
    found["server"] = part(saved.run, "server") | found["server"]
    found_out = replace(saved, run=saved.run | found)
    try:
        return reworked(found_out, HardwareSection())
    except BenchError:  # a file that it was to be worked out of has gone since
        return found_out
