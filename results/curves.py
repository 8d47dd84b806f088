"""The runs of a matrix or a sweep as curves over their load, and where each has its knee.

Read tolerantly from an index, as everything that shows results is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Any

from servemark.harness.figures.knee import Knee, LoadPoint, knee
from servemark.harness.figures.pareto import front
from servemark.harness.matrix.labels import label
from servemark.results.matrix import TOO_MUCH
from servemark.results.schema import number, part, text

_LOADS = ("rate", "concurrency")
"""By these flags a load is known first of all, and by what stands under `load` else."""


@dataclass(frozen=True, slots=True)
class Point:
    """All runs at one load of one curve. Figures are the medians of the VALID ones, or of all where none is VALID."""

    load: float | None
    name: str
    cells: tuple[Mapping[str, Any], ...]

    @property
    def valid(self) -> tuple[Mapping[str, Any], ...]:
        return tuple(cell for cell in self.cells if cell.get("state") == "valid")

    @property
    def state(self) -> str:
        """`valid` where any run is; else the last run's that was made."""
        made = [state for cell in self.cells if (state := text(cell.get("state"), 20)) != "pending"]
        return "valid" if self.valid else made[-1] if made else "pending"

    def figure(self, name: str) -> float | None:
        values = [number(part(cell, "figures").get(name)) for cell in self.valid or self.cells]
        known = [value for value in values if value is not None]
        return median(known) if known else None

    @property
    def tps_per_user(self) -> float | None:
        """What a user gets: the inverse of the median TPOT."""
        tpot_ms = self.figure("tpot_p50_ms")
        return 1000 / tpot_ms if tpot_ms else None

    def certain(self, name: str) -> bool:
        """Whether each of those runs had requests enough for this percentile."""
        said = (cell.get("uncertain") for cell in self.valid or self.cells)
        return not any(isinstance(names, list) and name in names for names in said)

    @property
    def unsteady(self) -> bool:
        """Whether the throughput of one of those runs is nothing to lean on."""
        return any(isinstance(cell.get("unsteady"), list) and cell["unsteady"] for cell in self.valid)

    @property
    def missed(self) -> bool:
        """All runs that were made show that the load misses the SLO, and none fails to show it for another reason."""
        made = [cell for cell in self.cells if cell.get("state") in ("valid", "invalid")]
        return bool(made) and all(_missed(cell) for cell in made)

    @property
    def too_much(self) -> bool:
        """No run is VALID, and one says that the server was overloaded."""
        return not self.valid and any(map(_overloaded, self.cells))


def _overloaded(cell: Mapping[str, Any]) -> bool:
    codes = cell.get("codes")
    return isinstance(codes, list) and bool(TOO_MUCH & set(map(str, codes)))


def _missed(cell: Mapping[str, Any]) -> bool:
    return _overloaded(cell) or (cell.get("state") == "valid" and cell.get("slo_met") is False)


@dataclass(frozen=True, slots=True)
class Curve:
    """Points in order of their load. `axis` is the setting that makes it, None where there is none; `of_load` says
    whether more of it is more load; `others` are the settings that all points have."""

    engine: str
    workload: str
    others: str
    axis: str | None
    of_load: bool
    points: tuple[Point, ...]

    @property
    def unsteady(self) -> list[float]:
        """The loads of VALID points that no knee is found by, as their throughput is nothing to lean on."""
        return [point.load for point in self.points if point.load is not None and point.unsteady]

    @property
    def measured(self) -> list[LoadPoint]:
        """The VALID points that have what a knee is found by."""
        return [
            LoadPoint(point.load, tps, latency)
            for point in self.points
            if point.load is not None
            and point.valid
            and not point.unsteady
            and (tps := point.figure("output_tps")) is not None
            and (latency := point.figure("e2e_mean_ms")) is not None
        ]

    @property
    def knee(self) -> Knee | None:
        """None where it makes no sense to ask."""
        if not self.of_load:
            return None
        known = self.measured
        highest = max((point.load for point in known), default=-math.inf)
        beyond = (point.load for point in self.points if point.load is not None and point.too_much)
        return knee(known, min((load for load in beyond if load > highest), default=None))

    @property
    def at_knee(self) -> Point | None:
        found = self.knee
        return next((p for p in self.points if found and found.load is not None and p.load == found.load), None)


def curves(cells: Iterable[Mapping[str, Any]]) -> list[Curve]:
    """In the order of the cells; repetitions are one point."""
    found: dict[tuple[str, str, str, str | None], list[Mapping[str, Any]]] = {}
    for cell in cells:
        settings = part(cell, "settings")
        axis = axis_of(settings)
        others = label({name: value for name, value in settings.items() if name != axis})
        key = (text(cell.get("engine"), 200), text(cell.get("workload"), 60), text(others, 200), axis)
        found.setdefault(key, []).append(cell)
    return [Curve(e, w, others, axis, is_load(axis), _points(own, axis)) for (e, w, others, axis), own in found.items()]


def _points(cells: Sequence[Mapping[str, Any]], axis: str | None) -> tuple[Point, ...]:
    by_load: dict[str, list[Mapping[str, Any]]] = {}
    for cell in cells:
        by_load.setdefault(text(cell.get("load"), 200), []).append(cell)
    points = [
        Point(_number(part(own[0], "settings").get(axis)) if axis else None, name, tuple(own))
        for name, own in by_load.items()
    ]
    return tuple(sorted(points, key=lambda point: math.inf if point.load is None else point.load))


def pareto(curves: Iterable[Curve]) -> dict[str, list[Point]]:
    """Of each workload, over all engines, the VALID and steady points on the front of tokens/s per user and per GPU."""
    known: dict[str, list[tuple[Point, tuple[float, float]]]] = {}
    for curve in curves:
        for point in curve.points:
            per_user, per_gpu = point.tps_per_user, point.figure("output_tps_per_gpu")
            if point.valid and not point.unsteady and per_user is not None and per_gpu is not None:
                known.setdefault(curve.workload, []).append((point, (per_user, per_gpu)))
    return {name: [own[place][0] for place in front([at for _, at in own])] for name, own in known.items()}


def axis_of(settings: Mapping[str, Any]) -> str | None:
    """The setting that makes the load; where none does, the last that is a number."""
    numeric = [text(name, 200) for name, value in settings.items() if _number(value) is not None]
    named = [name for name in (*_LOADS, *numeric) if name in numeric and is_load(name)]
    return named[0] if named else numeric[-1] if numeric else None


def is_load(axis: str | None) -> bool:
    return axis is not None and (axis in _LOADS or axis.startswith("load."))


def _number(value: Any) -> float | None:
    """Of 8, "8" and "8/s"; None of words, and of what is infinite."""
    if isinstance(value, str):
        try:
            value = float(value.removesuffix("/s"))
        except ValueError:
            return None
    return number(value)


def knees(cells: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """For the index: each curve over a load with where its knee is, and the figures there."""
    rows = []
    for curve in curves(cells):
        found, point = curve.knee, curve.at_knee
        if found is None:
            continue
        where = {"engine": curve.engine, "workload": curve.workload, "others": curve.others, "axis": curve.axis}
        bounds = {"kind": found.kind, "load": found.load, "low": found.low, "high": found.high}
        shown = ("output_tps", "ttft_p99_ms", "e2e_mean_ms")
        figures = {} if point is None else {name: point.figure(name) for name in shown}
        rest = {"overload": found.overload, "unsteady": curve.unsteady, "figures": figures}
        rows.append({**where, **bounds, **rest})
    return rows


def too_high(cells: Iterable[Mapping[str, Any]]) -> list[str]:
    """The cells above two loads, one beside the other, that both miss the SLO."""
    found = []
    for curve in curves(cells):
        points = [point for point in curve.points if point.load is not None and curve.of_load]
        above = next((i + 2 for i, pair in enumerate(pairwise(points)) if all(p.missed for p in pair)), len(points))
        found += [text(cell.get("id"), 1_000) for point in points[above:] for cell in point.cells]
    return found
