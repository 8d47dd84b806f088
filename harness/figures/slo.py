"""Service-level objectives: `ttft=200ms` limits each request, `ttft:p99=500ms` limits the run.

Grammar: METRIC=VALUE or METRIC:pNN=VALUE, several joined by commas; a value carries its unit. "=" means no worse than:
at most where lower is better, at least where higher is. A metric with one value a run (`error_rate=1%`) limits the run.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import TYPE_CHECKING

from servemark.harness.figures.metrics import METRICS
from servemark.harness.figures.view import Metric, View

if TYPE_CHECKING:
    from servemark.harness.figures.frame import Frame, Mask

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
class Slo:
    """Limits, and the share of requests that is to meet those on requests.

    Of a mix `classes` holds what each class is to meet, and then of `limits` only those on the run are the run's: the
    others have become those of the classes that name none; see `by_class`.
    """

    limits: tuple[Limit, ...]
    attainment: float | None = None
    classes: Mapping[str, Slo] = field(default_factory=dict)

    def __str__(self) -> str:
        return ",".join(limit.text for limit in self.limits)

    @property
    def said(self) -> str:
        """Its limits, and those of each class."""
        own = (f"{name}: {each}" for name, each in self.classes.items() if each.limits)
        return "; ".join(filter(None, (str(self), *own)))

    @property
    def per_request(self) -> tuple[Limit, ...]:
        return tuple(limit for limit in self.limits if limit.per_request)

    @property
    def every_limit(self) -> tuple[Limit, ...]:
        """Those of the classes included."""
        return tuple(chain(self.limits, *(own.limits for own in self.classes.values())))

    @property
    def apart(self) -> bool:
        """Some class is to meet something else than all."""
        everywhere = Slo(self.per_request, self.attainment)
        return any(own != everywhere for own in self.classes.values())

    def of_class(self, name: str) -> Slo:
        """What requests of a class are to meet."""
        return self.classes.get(name, self)

    def deadlines_ms(self, class_: str = "") -> dict[str, float]:
        """The limits on requests of a class that set deadlines for tokens: ttft and tpot."""
        limits = self.of_class(class_).per_request
        return {each.metric: each.value for each in limits if each.metric in ("ttft", "tpot")}

    def judged(self, frame: Frame) -> Mask:
        """Requests for which some limit on requests holds."""
        found = frame.ok & False
        for own, rows in self._parts(frame):
            found |= rows & bool(own.per_request)
        return found

    def meets(self, view: View) -> Mask:
        """Requests of any phase that succeeded and meet every limit on requests that holds for them."""
        good = view.frame.ok
        for own, rows in self._parts(view.frame):
            for limit in own.per_request:
                good = good & (~rows | limit.rows(view))
        return good

    def passes(self, view: View) -> Mask:
        """Those of them that are measured."""
        return self.meets(view) & view.frame.measured

    def _parts(self, frame: Frame) -> Iterator[tuple[Slo, Mask]]:
        """Each SLO with the rows that it holds for."""
        left = ~(frame.ok & False)
        for name, own in self.classes.items():
            rows = frame["class_"] == name
            yield own, rows
            left &= ~rows
        yield self, left


def by_class(top: Slo, classes: Mapping[str, Slo | None]) -> Slo:
    """`top` with what each class is to meet: its own limits, else those of `top` on requests; likewise attainment."""
    found = {}
    for name, own in classes.items():
        limits = own.limits if own is not None and own.limits else top.per_request
        attainment = own.attainment if own is not None and own.attainment is not None else top.attainment
        found[name] = Slo(limits, attainment)
    return replace(top, classes=found)


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
        number = "50" if match is None else _as_percent(match[1], metric) if metric.unit == "share" else match[1]
        raise ValueError(f"{text!r} {wrong}; write {text.split('=')[0]}={number}{example}")
    return float(match[1]) * units[match[2]]


def _as_percent(number: str, metric: Metric) -> str:
    """A share written as a fraction is taken for one: 0.9 is 90 %. All of it is asked of what is good alone."""
    value = float(number)
    fraction = value <= 1 if metric.better == "higher" else value < 1
    return f"{value * 100:g}" if fraction else number
