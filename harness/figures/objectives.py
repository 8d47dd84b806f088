"""How a run stands to its SLO: the joint share of requests, and each limit on the run, on adjusted percentiles."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
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
    """How a run stands to its SLO. `met` is what a gate asks; `reasons` are sentences, one for each miss.

    `good` of `measured` requests are `share`; all are of those for which some limit on requests holds, and None where
    it holds for none. `attainment` is None where the joint share of a mix is not judged. `classes` holds each class's
    own.
    """

    met: bool
    good: int | None
    measured: int
    share: float | None
    attainment: float | None
    limits: tuple[LimitResult, ...]
    reasons: tuple[str, ...]
    classes: Mapping[str, SloResult] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        rows = [{"limit": each.limit.text, "value": each.value, "met": each.met} for each in self.limits]
        found = {
            "met": self.met,
            "good": self.good,
            "measured": self.measured,
            "share": self.share,
            "attainment": self.attainment,
            "limits": rows,
            "reasons": list(self.reasons),
        }
        return found | (
            {"classes": {name: own.to_json() for name, own in self.classes.items()}} if self.classes else {}
        )


def weigh(slo: Slo, view: View) -> SloResult:
    """Judges the joint share against the attainment, and limits on the run on adjusted percentiles.

    Of a mix each class has to meet its own besides; what the file asks of requests is then judged by class.
    """
    classes = {name: weigh(own, view_of_class(own, view, name)) for name, own in slo.classes.items() if own.limits}
    needed = _needed(slo)
    judged = slo.judged(view.frame) & view.frame.measured
    measured, good = int(judged.sum()), int((slo.meets(view) & judged).sum())
    share = good / measured if measured else None
    limits = slo.limits if not slo.classes else tuple(each for each in slo.limits if not each.per_request)
    results = tuple(_result(limit, view, needed or 0.0) for limit in limits)
    reasons = [_reason(each, view) for each in results if not each.met and not each.limit.per_request]
    if not view.frame.measured.any():
        reasons.append("no request was measured")
    elif share is not None and needed is not None and share < needed:
        texts = ",".join(limit.text for limit in slo.per_request) if not slo.classes else "the limits of their classes"
        reasons.append(f"{share:.2%} of {measured} requests meet {texts}; {needed:g} of them must")
    reasons += [f"class {name}: {reason}" for name, own in classes.items() for reason in own.reasons]
    counted = None if share is None else good
    return SloResult(not reasons, counted, measured, share, needed, results, tuple(reasons), classes)


def view_of_class(own: Slo, view: View, name: str) -> View:
    """The requests of one class, held to its own SLO; rates are its own part, over the window of the whole run."""
    return replace(view, frame=view.frame.take(view.frame["class_"] == name), slo=own, pooled={})


def _needed(slo: Slo) -> float | None:
    """The joint share of a mix is not judged where only classes say what they need."""
    if slo.attainment is not None:
        return slo.attainment
    named = any(own.attainment is not None for own in slo.classes.values())
    return None if named else DEFAULT_ATTAINMENT


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
        what = "failed or were given up" if (view.frame.measured & view.frame.gave_up).any() else "failed"
        return f"{name} is infinite, as {failed} of {int(view.frame.measured.sum())} requests {what}; {bound}"
    return f"{name} has no value; {bound}"
