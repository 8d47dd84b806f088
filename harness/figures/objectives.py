"""How a run stands to its SLO: the joint share of requests, and each limit on the run, on adjusted percentiles."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from servemark.harness.figures.metrics import METRICS
from servemark.harness.figures.slo import Limit, Slo
from servemark.harness.figures.stats import percentile
from servemark.harness.figures.summary import adjusted
from servemark.harness.figures.view import View

DEFAULT_ATTAINMENT = 0.99
"""Share of requests that must meet all per-request limits where a gate is asked for and no share is named."""


@dataclass(frozen=True, slots=True)
class LimitResult:
    """`value` is the share of requests that meet a per-request limit, or else the metric's figure (None: infinite)."""

    limit: Limit
    value: float | None
    met: bool


@dataclass(frozen=True, slots=True)
class SloResult:
    """How a run stands to its SLO. `met` is what a gate asks; `reasons` are sentences, one for each miss."""

    met: bool
    good: int
    measured: int
    share: float | None
    attainment: float
    limits: tuple[LimitResult, ...]
    reasons: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        rows = [{"limit": each.limit.text, "value": each.value, "met": each.met} for each in self.limits]
        return {
            "met": self.met,
            "good": self.good,
            "measured": self.measured,
            "share": self.share,
            "attainment": self.attainment,
            "limits": rows,
            "reasons": list(self.reasons),
        }


def weigh(slo: Slo, view: View) -> SloResult:
    """Judges the joint share against the attainment, and limits on the run on adjusted percentiles."""
    measured, good = int(view.frame.measured.sum()), int(slo.passes(view).sum())
    share = good / measured if measured else None
    needed = DEFAULT_ATTAINMENT if slo.attainment is None else slo.attainment
    results = tuple(_result(limit, view, needed) for limit in slo.limits)
    reasons = [_reason(each, view) for each in results if not each.met and not each.limit.per_request]
    if share is None:
        reasons.append("no request was measured")
    elif slo.per_request and share < needed:
        texts = ",".join(limit.text for limit in slo.per_request)
        reasons.append(f"{share:.2%} of {measured} requests meet {texts}; {needed:g} of them must")
    return SloResult(not reasons, good, measured, share, needed, results, tuple(reasons))


def figure(value: float | None, unit: str) -> str:
    """A figure for a sentence: `512.3 ms`, `99.1 %`; None is infinite."""
    if value is None or math.isinf(value):
        return "infinite"
    return f"{value * 100:.4g} %" if unit == "share" else f"{value:.4g} {unit}"


def _result(limit: Limit, view: View, needed: float) -> LimitResult:
    metric = METRICS[limit.metric]
    if limit.per_request:
        rows = view.frame.measured & view.frame.ok
        share = float((rows & limit.rows(view)).sum() / max(1, view.frame.measured.sum()))
        return LimitResult(limit, share, share >= needed)
    if limit.percent is None:
        found = metric.compute(view).value
    elif metric.kind == "pooled":
        found = percentile(np.sort(metric.compute(view).values), limit.percent)
    else:
        # Where higher is better the bad tail is the low one: p99 is what 99 % of requests reach.
        values = adjusted(metric, view)
        found = percentile(-values[::-1], limit.percent) if metric.better == "higher" else None
        found = -found if found is not None else percentile(values, limit.percent)
    met = found is not None and limit.meets(found)
    return LimitResult(limit, found if found is not None and math.isfinite(found) else None, met)


def _reason(result: LimitResult, view: View) -> str:
    limit, metric = result.limit, METRICS[result.limit.metric]
    name = limit.metric if limit.percent is None else f"{limit.metric} p{limit.percent:g}"
    bound = f"the limit is {figure(limit.value, metric.unit)}"
    if result.value is not None:
        return f"{name} is {figure(result.value, metric.unit)}; {bound}"
    failed = int((view.frame.measured & ~view.frame.ok).sum())
    if metric.kind == "per_request" and failed:
        return f"{name} is infinite, as {failed} of {int(view.frame.measured.sum())} requests failed; {bound}"
    return f"{name} has no value; {bound}"
