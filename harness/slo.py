"""Service-level objectives: `ttft=200ms` limits each request, `ttft:p99=500ms` limits the run.

Grammar: METRIC=VALUE or METRIC:pNN=VALUE, several joined by commas; a value carries its unit. "=" means no worse than:
at most where lower is better, at least where higher is. A metric with one value a run (`error_rate=1%`) limits the run.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from servemark.harness.metrics import METRICS
from servemark.harness.view import Metric, View

if TYPE_CHECKING:
    from servemark.harness.frame import Mask

DEFAULT_ATTAINMENT = 0.99
"""Share of requests that must meet all per-request limits where a gate is asked for and no share is named."""

_TIMES = {"us": 1e-3, "ms": 1.0, "s": 1e3, "min": 6e4}
_UNITS: dict[str, dict[str, float]] = {
    "ms": _TIMES,
    "ms/tok": _TIMES | {"ms/tok": 1.0},
    "tok/s": {"tok/s": 1.0},
    "req/s": {"req/s": 1.0},
    "share": {"%": 0.01},
}
_LIMIT = re.compile(r"([a-z0-9_]+)(?::([a-z0-9_.]+))?=(.*)")
_VALUE = re.compile(r"([0-9]*\.?[0-9]+(?:e[-+]?[0-9]+)?)\s*(.*)")
_VLLM = {"ttft": "ttft", "tpot": "tpot", "e2el": "e2e"}


@dataclass(frozen=True, slots=True)
class Limit:
    """`value` is in the metric's unit; `percent` is None for a limit per request or on one value of a run."""

    metric: str
    percent: float | None
    value: float
    text: str

    @property
    def per_request(self) -> bool:
        return self.percent is None and METRICS[self.metric].kind == "per_request"

    def meets(self, value: float) -> bool:
        return value >= self.value if METRICS[self.metric].better == "higher" else value <= self.value

    def rows(self, view: View) -> Mask:
        """Which requests meet a per-request limit; one without a value meets it only where the metric is vacuous."""
        metric = METRICS[self.metric]
        values = metric.compute(view)
        within: Mask = values >= self.value if metric.better == "higher" else values <= self.value
        if metric.vacuous:
            within = within | (view.frame.ms_between("first_token_ns", "last_token_ns") == 0)
        return within


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


@dataclass(frozen=True, slots=True)
class Slo:
    limits: tuple[Limit, ...]
    attainment: float | None = None

    def __str__(self) -> str:
        return ",".join(limit.text for limit in self.limits)

    @property
    def per_request(self) -> tuple[Limit, ...]:
        return tuple(limit for limit in self.limits if limit.per_request)

    def deadlines_ms(self) -> dict[str, float]:
        """The per-request limits that set deadlines for tokens: ttft and tpot."""
        return {each.metric: each.value for each in self.per_request if each.metric in ("ttft", "tpot")}

    def passes(self, view: View) -> Mask:
        """Requests that are measured, succeeded and meet every per-request limit."""
        good = view.frame.measured & view.frame.ok
        for limit in self.per_request:
            good = good & limit.rows(view)
        return good

    def evaluate(self, view: View) -> SloResult:
        """Judges the joint share against the attainment, and limits on the run on adjusted percentiles."""
        measured, good = int(view.frame.measured.sum()), int(self.passes(view).sum())
        share = good / measured if measured else None
        needed = DEFAULT_ATTAINMENT if self.attainment is None else self.attainment
        results = tuple(_result(limit, view, needed) for limit in self.limits)
        reasons = [_reason(each, view) for each in results if not each.met and not each.limit.per_request]
        if share is None:
            reasons.append("no request was measured")
        elif self.per_request and share < needed:
            texts = ",".join(limit.text for limit in self.per_request)
            reasons.append(f"{share:.2%} of {measured} requests meet {texts}; {needed:g} of them must")
        return SloResult(not reasons, good, measured, share, needed, results, tuple(reasons))


def parse_slo(text: str | Iterable[str], attainment: float | None = None) -> Slo:
    """Reads limits joined by commas (or several such texts); ValueError says what is wrong in one sentence."""
    if attainment is not None and not 0 < attainment <= 1:
        raise ValueError(f"attainment {attainment:g} is no share; write one above 0 and at most 1, as 0.99")
    parts = [text] if isinstance(text, str) else list(text)
    limits = [_parse(each.strip()) for part in parts for each in part.split(",") if each.strip()]
    if not limits:
        raise ValueError("the SLO holds no limit; write one as ttft=200ms or ttft:p99=500ms")
    seen: set[tuple[str, float | None]] = set()
    for limit in limits:
        key = (limit.metric, limit.percent)
        if key in seen:
            raise ValueError(f"{limit.text.split('=')[0]} is limited twice; keep one of them")
        seen.add(key)
    return Slo(tuple(limits), attainment)


def from_vllm_goodput(pairs: Iterable[str]) -> Slo:
    """vLLM's `--goodput ttft:200 tpot:50 e2el:2000` (ms) as per-request limits."""
    limits = []
    for pair in " ".join(pairs).replace(",", " ").split():
        name, colon, number = pair.partition(":")
        if not colon or name not in _VLLM or not re.fullmatch(r"[0-9]*\.?[0-9]+", number):
            raise ValueError(f"{pair!r} is no --goodput limit; write ttft:200, tpot:50 or e2el:2000, in ms")
        limits.append(f"{_VLLM[name]}={number}ms")
    return parse_slo(limits)


def limitable() -> list[str]:
    """Metrics that a limit can be set on."""
    return [name for name, metric in METRICS.items() if metric.better != "none" and not metric.needs_slo]


def figure(value: float | None, unit: str) -> str:
    """A figure for a sentence: `512.3 ms`, `99.1 %`; None is infinite."""
    if value is None or math.isinf(value):
        return "infinite"
    return f"{value * 100:.4g} %" if unit == "share" else f"{value:.4g} {unit}"


def _parse(text: str) -> Limit:
    match = _LIMIT.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no limit; write METRIC=VALUE or METRIC:pNN=VALUE, as ttft:p99=500ms")
    name, statistic, value = match.groups()
    if name not in METRICS or name not in limitable():
        known = "cannot be limited" if name in METRICS else "is no metric"
        raise ValueError(f"{name!r} in {text!r} {known}; limits go on: {', '.join(limitable())}")
    metric = METRICS[name]
    percent = None if statistic is None else _percent(statistic, text, metric)
    if metric.kind == "pooled" and percent is None:
        raise ValueError(f"{name} has no one value per request; write a percentile, as {name}:p99={value}")
    return Limit(name, percent, _value(value.strip(), text, metric), text)


def _percent(statistic: str, text: str, metric: Metric) -> float:
    if metric.kind == "scalar":
        raise ValueError(f"{metric.name} has one value a run, so {text!r} can name no percentile; leave it out")
    number = re.fullmatch(r"p([0-9]+(?:[._][0-9]+)?)", statistic)
    percent = float(number[1].replace("_", ".")) if number else 0.0
    if not 0 < percent < 100:
        raise ValueError(f"{statistic!r} in {text!r} is no percentile; write p50, p99 or p99.9")
    return percent


def _value(value: str, text: str, metric: Metric) -> float:
    units = _UNITS[metric.unit]
    example = next(iter(units)) if metric.unit not in ("ms", "ms/tok") else "ms"
    match = _VALUE.fullmatch(value)
    if match is None or match[2] not in units:
        wrong = "has no unit" if match is not None and not match[2] else f"has no value in {' or '.join(units)}"
        number = match[1] if match is not None else "50"
        raise ValueError(f"{text!r} {wrong}; write {text.split('=')[0]}={number}{example}")
    return float(match[1]) * units[match[2]]


def _result(limit: Limit, view: View, needed: float) -> LimitResult:
    from servemark.harness.stats import percentile
    from servemark.harness.summary import adjusted

    metric = METRICS[limit.metric]
    if limit.per_request:
        rows = view.frame.measured & view.frame.ok
        share = float((rows & limit.rows(view)).sum() / max(1, view.frame.measured.sum()))
        return LimitResult(limit, share, share >= needed)
    if limit.percent is None:
        found = metric.compute(view).value
    elif metric.kind == "pooled":
        import numpy as np

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
