"""A saved run by folder or by id, ready to be shown: the figures of one that was cut short are worked out here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from servemark.harness.figures.slo import parse_slo
from servemark.results.recover import LoadedRun, load
from servemark.results.schema import part


def open_run(name: str) -> LoadedRun:
    """`name` is a run's folder, or its id under ./runs. Raises ResultUnusable."""
    folder = Path(name)
    if not folder.exists() and (Path("runs") / name).is_dir():
        folder = Path("runs") / name
    saved = load(folder)
    return saved if saved.finished else _worked_out(saved)


def _worked_out(saved: LoadedRun) -> LoadedRun:
    from servemark.results.evaluate import measured

    limits = part(saved.run, "slo").get("limits")
    try:
        slo = parse_slo(limits) if limits else None
    except (TypeError, ValueError):  # the file may be anybody's
        slo = None
    found = measured(saved.frame(), saved.server_samples(), slo)
    found["server"] = part(saved.run, "server") | found["server"]
    return replace(saved, run=saved.run | found)
