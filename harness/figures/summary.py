"""From a metric's samples to its entry in a result: JSON-safe, means never alone, uncertainty beside each figure."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from servemark.harness.figures import stats
from servemark.harness.figures.chunks import Gaps
from servemark.harness.figures.frame import Floats, Frame, Mask, Window
from servemark.harness.figures.metrics import METRICS
from servemark.harness.figures.view import Metric, Origin, Scalar, View, view_of

if TYPE_CHECKING:
    from servemark.harness.figures.slo import Slo


def summarize(
    frame: Frame,
    window: Window | None = None,
    slo: Slo | None = None,
    *,
    whole: Window | None = None,
    origin: Origin = "intended",
    names: Iterable[str] | None = None,
    seed: int = 0,
) -> dict[str, dict[str, Any]]:
    """Every metric (or `names`) of a frame that holds all phases, as JSON-safe entries by name; see docs/metrics.md.

    `window` is the steady window; the default runs from the first to the last measured arrival. `whole` is the run's.
    """
    view = view_of(frame, window, slo, origin, whole)
    judged = bool(view.judged.any()) if len(frame) else slo is not None
    chosen = [METRICS[name] for name in (METRICS if names is None else names)]
    return {each.name: describe(each, view, seed) for each in chosen if judged or not each.needs_slo}


def describe(metric: Metric, view: View, seed: int = 0) -> dict[str, Any]:
    """The entry of one metric."""
    origin = view.origin if metric.origin == "run" else metric.origin
    entry: dict[str, Any] = {
        "unit": metric.unit,
        "better": metric.better,
        "kind": metric.kind,
        "origin": origin,
        "window": metric.window,
    }
    if metric.kind == "scalar":
        entry |= _scalar(metric.compute(view), view, metric)
    elif metric.kind == "pooled":
        gaps = metric.compute(view)
        if id(gaps) not in view.pooled:
            view.pooled[id(gaps)] = _pooled(gaps, seed)
        entry |= view.pooled[id(gaps)]
    else:
        entry |= _per_request(metric, view)
    return entry


def samples(metric: Metric, view: View) -> Floats:
    """A per-request metric's values in order of intended time, undefined ones left out."""
    values, frame = metric.compute(view), view.frame
    rows = frame.measured if metric.failures == "apart" else frame.measured & (frame.ok | _early(metric, frame))
    chosen: Floats = values[rows]
    return chosen[~np.isnan(chosen)]


def _early(metric: Metric, frame: Frame) -> Mask:
    """Requests without an answer whose value may stand all the same."""
    return frame.gave_up & metric.early


def adjusted(metric: Metric, view: View) -> Floats:
    """Those values, sorted, with each request that failed, or whose client gave up before it, as infinitely bad."""
    frame, failed = view.frame, 0
    if metric.failures == "worst":
        known = _early(metric, frame)
        if known.any():
            known &= ~np.isnan(metric.compute(view))
        failed = int((frame.measured & ~frame.ok & ~known).sum())
    worst = -np.inf if metric.better == "higher" else np.inf
    return np.sort(np.concatenate((samples(metric, view), np.full(failed, worst))))


def sample_count(metric: Metric, view: View) -> int:
    """How many requests a percentile of it is taken of."""
    if metric.kind == "pooled":
        return len(np.unique(metric.compute(view).rows))
    return len(adjusted(metric, view))


def _scalar(scalar: Scalar, view: View, metric: Metric) -> dict[str, Any]:
    window = view.whole if metric.window == "run" else view.window
    return {"value": _finite(scalar.value), "seconds": window.seconds, **(scalar.notes or {})}


def _pooled(gaps: Gaps, seed: int) -> dict[str, Any]:
    ordered = np.sort(gaps.values)
    n_requests = len(gaps.rows) and 1 + int(np.count_nonzero(gaps.rows[1:] != gaps.rows[:-1]))
    entry = _moments(ordered) | _percentiles(ordered)
    entry["n_requests"] = n_requests
    entry["ci"] = stats.cluster_bootstrap(gaps.values, ordered, gaps.rows, seed=seed)
    entry["ci_method"] = "bootstrap over requests, within this run"
    # Gaps of one request depend on each other: requests are what certifies.
    entry["certified"] = stats.certified(n_requests)
    return entry


def _per_request(metric: Metric, view: View) -> dict[str, Any]:
    series = samples(metric, view)
    ordered = np.sort(series)
    entry = _moments(ordered) | _percentiles(ordered)
    entry["ci"] = {stats.label(p): stats.interval(ordered, p) for p in stats.PERCENTS} if len(ordered) else {}
    entry["ci_method"] = "order statistics, within this run, requests taken as independent"
    correlation = stats.autocorrelation(series)
    entry["autocorrelation"] = _finite(correlation)
    entry["autocorrelated"] = correlation is not None and abs(correlation) > stats.AUTOCORRELATION_WARNING
    entry["certified"] = stats.certified(len(ordered))
    if metric.better == "lower" and metric.failures == "worst":
        entry |= _adjusted(adjusted(metric, view))
    if metric.name in ("fluidity", "stall_time"):
        entry["deadlines"] = _deadlines(view)
    if metric.name in ("tpot", "tps_user"):
        rows = view.frame.measured & view.frame.ok
        entry["first_chunk_assumed"] = int(np.isnan(view.first_tokens[rows]).sum())
    return entry


def _deadlines(view: View) -> dict[str, Any]:
    """Those of all requests, or by class where they differ."""
    if len(set(view.due.values())) == 1:
        return next(iter(view.due.values()))._asdict()
    return {"source": "slo", "classes": {name: due._asdict() for name, due in view.due.items()}}


def _adjusted(ordered: Floats) -> dict[str, Any]:
    """Percentiles with failed requests as infinite; None and `censored` where the percentile itself is infinite."""
    found = {f"{stats.label(p)}_adj": stats.percentile(ordered, p) for p in stats.PERCENTS}
    entry: dict[str, Any] = {name: _finite(value) for name, value in found.items()}
    entry["censored"] = any(value is not None and math.isinf(value) for value in found.values())
    entry["n_adj"] = len(ordered)
    entry["certified"] = stats.certified(len(ordered))
    bounds = {stats.label(p): stats.early_stopping_estimate(ordered, p) for p in stats.PERCENTS}
    entry["early_stopping"] = {name: _finite(bounds[name]) for name in entry["certified"]}
    return entry


def _moments(ordered: Floats) -> dict[str, Any]:
    if not len(ordered):
        return {"n": 0, "mean": None, "std": None, "min": None, "max": None}
    return {
        "n": len(ordered),
        "mean": float(ordered.mean()),
        "std": float(ordered.std(ddof=1)) if len(ordered) > 1 else None,
        "min": float(ordered[0]),
        "max": float(ordered[-1]),
    }


def _percentiles(ordered: Floats) -> dict[str, Any]:
    return {stats.label(p): stats.percentile(ordered, p) for p in stats.PERCENTS}


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
