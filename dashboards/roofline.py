"""A roofline: what one GPU can compute at most, by how many FLOPs there are for each byte, and where a run lies."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from servemark.dashboards import plots
from servemark.dashboards.panels import Figure
from servemark.results.schema import items, number, text

ROLES = ("ttft", "tpot", "flight", "requests")
POINT_ROLES = ("decode", "e2e", "requests", "queue")
MOST = 8
_LOG = {"type": "log", "dtick": "D2"}
_TERA = 1e12
_NOTE = (
    "One GPU. The slope is the memories' bandwidth, the flat lines the dense peaks; dotted is what large matrix "
    "products reach by public measurements. Under the slope memory binds, under a flat line the arithmetic."
)


def figure(roofline: Mapping[str, Any], phases: Mapping[str, Any] | None = None, height: int = 400) -> Figure | None:
    """None without a bandwidth and a ceiling. `phases` are MBU and MFU by phase, which make points of their own.

    `achievable` of the roofline is the share of a peak that large matrix products reach.
    """
    bandwidth = _positive(roofline.get("bytes_per_s"))
    ceilings = [
        (text(each.get("dtype"), 20), _positive(each.get("flops_per_s"))) for each in items(roofline, "ceilings")
    ]
    peaks = [(name, peak) for name, peak in ceilings[:MOST] if peak is not None]
    if bandwidth is None or not peaks:
        return None
    points = [*_points(roofline), *_phase_points(phases or {}, bandwidth, [peak for _, peak in peaks])]
    span = _span([peak / bandwidth for _, peak in peaks] + [x for _, x, _ in points])
    traces = list(_ceilings(peaks, bandwidth, span, number(roofline.get("achievable"))))
    traces += [_dot(*point, POINT_ROLES[place % len(POINT_ROLES)]) for place, point in enumerate(points)]
    layout = {
        "xaxis": plots.axis("arithmetic intensity, FLOP per byte", range=[math.log10(at) for at in span], **_LOG),
        "yaxis": plots.axis("per GPU, TFLOP/s", **_LOG),
        "hovermode": "closest",
    }
    return Figure("Roofline", traces, layout, height, _NOTE)


def _ceilings(
    peaks: list[tuple[str, float]], bandwidth: float, span: tuple[float, float], achievable: float | None
) -> Iterator[plots.Trace]:
    for place, (name, peak) in enumerate(peaks):
        role = ROLES[place % len(ROLES)]
        yield _roof(f"{name} peak", peak, bandwidth, span, role)
        if achievable is not None and 0 < achievable < 1:
            yield _roof(f"{name} achievable", peak * achievable, bandwidth, span, role, line={"dash": "dot"}, width=1.2)


def _roof(name: str, peak: float, bandwidth: float, span: tuple[float, float], role: str, **more: Any) -> plots.Trace:
    """Up the slope to the peak, and along it."""
    xs = [span[0], peak / bandwidth, span[1]]
    ys = [min(peak, x * bandwidth) / _TERA for x in xs]
    return plots.line(plots.numbers(xs), plots.numbers(ys), name, role, **more)


def _points(roofline: Mapping[str, Any]) -> Iterator[tuple[str, float, float]]:
    for each in items(roofline, "points")[:MOST]:
        x, y = _positive(each.get("intensity")), _positive(each.get("flops_per_s"))
        if x is not None and y is not None:
            yield text(each.get("name") or each.get("what"), 40) or "run", x, y


def _phase_points(
    phases: Mapping[str, Any], bandwidth: float, peaks: list[float]
) -> Iterator[tuple[str, float, float]]:
    """Shares of the one peak and the bandwidth are a place; of several peaks an MFU does not say which."""
    for name, found in list(phases.items())[:MOST]:
        own = found if isinstance(found, Mapping) else {}
        moved, done = _positive(own.get("mbu")), _positive(own.get("mfu"))
        if moved is not None and done is not None and len(peaks) == 1:
            yield text(name, 40), done * peaks[0] / (moved * bandwidth), done * peaks[0]


def _dot(name: str, x: float, y: float, role: str) -> plots.Trace:
    at = plots.numbers([x]), plots.numbers([y / _TERA])
    return plots.dots(*at, name, role, mode="markers+text", marker={"size": 11, "opacity": 1}, text=[name],
                      textposition="bottom center", cliponaxis=False)  # fmt: skip


def _span(xs: list[float]) -> tuple[float, float]:
    """From a third of the lowest, and of 1 at most, to three times the highest; no axis is endless."""
    return max(1e-3, min(1.0, *(x / 3 for x in xs))), min(1e7, max(10.0, *(x * 3 for x in xs)))


def _positive(value: object) -> float | None:
    found = number(value)
    return found if found is not None and found > 0 else None
