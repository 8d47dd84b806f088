"""How a metric is declared, and what it is computed from.

A metric is declared without numpy, so that names and units are known to flags at once; computing loads it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from servemark.harness.registry import Registry

if TYPE_CHECKING:
    from servemark.harness.figures.chunks import Deadlines, Gaps, Tokens
    from servemark.harness.figures.frame import Floats, Frame, Mask, Window

Better = Literal["lower", "higher", "none"]
Kind = Literal["per_request", "pooled", "scalar"]
Origin = Literal["intended", "sent"]

TTFT_DEADLINE_MS = 2000.0
TPOT_DEADLINE_MS = 100.0
"""Fluidity's deadlines where no SLO names others: MLPerf Inference's server limits for Llama-3.1-8B."""


@dataclass(frozen=True, slots=True)
class Metric:
    """A declared metric. `compute` returns, by kind: float64 per row of the frame (nan: undefined), Gaps, or Scalar."""

    name: str
    unit: str
    better: Better
    kind: Kind
    origin: Literal["run", "intended", "sent", "none"]
    """Where latencies count from; "run": the run's origin, which is the intended time unless asked otherwise."""
    window: Literal["steady", "run", "none"]
    about: str
    compute: Callable[[View], Any]
    failures: Literal["worst", "apart"]
    """Failed requests: infinitely bad in adjusted percentiles and left out of the plain ones, or taken like others."""
    vacuous: bool
    """A response with nothing after its first chunk has no value and meets any limit."""
    needs_slo: bool
    early: bool
    """Known before the answer has ended: it stands where the client gave up after that."""


@dataclass(frozen=True, slots=True)
class Scalar:
    """One value of a run, and what must be said beside it."""

    value: float | None
    notes: Mapping[str, Any] | None = None


class Due(NamedTuple):
    """Deadlines of the first and of each next token, and who set them."""

    ttft_ms: float
    tpot_ms: float
    source: str


class Objectives(Protocol):
    """What metrics ask of an SLO."""

    def judged(self, frame: Frame) -> Mask:
        """Requests for which some limit on requests holds."""

    def meets(self, view: View) -> Mask:
        """Requests of any phase that succeeded and meet every limit on requests that holds for them."""

    def deadlines_ms(self, class_: str) -> dict[str, float]:
        """The limits on requests of a class that set deadlines for tokens: ttft and tpot."""


@dataclass(frozen=True)
class View:
    """What metrics are computed from. Intermediate results are kept, since several metrics share them."""

    frame: Frame
    window: Window
    whole: Window
    slo: Objectives | None = None
    origin: Origin = "intended"
    pooled: dict[int, dict[str, Any]] = field(default_factory=dict)
    """Entries by identity of their samples: ITL and ICL are often the same."""

    def since_ms(self, stamp: str) -> Floats:
        return self.frame.ms_between(f"{self.origin}_ns", stamp)

    @cached_property
    def judged(self) -> Mask:
        """Requests for which some limit on requests holds; none without an SLO."""
        return self.frame.ok & False if self.slo is None else self.slo.judged(self.frame)

    @cached_property
    def good(self) -> Mask:
        """Requests of any phase that succeeded and meet the limits on requests that hold for them, one or more."""
        if self.slo is None:
            raise ValueError("goodput needs an SLO")
        return self.slo.meets(self) & self.judged

    @cached_property
    def pool(self) -> Frame:
        """The measured requests that succeeded."""
        rows = self.frame.measured & self.frame.ok
        return self.frame if rows.all() else self.frame.take(rows)

    @cached_property
    def icl(self) -> Gaps:
        from servemark.harness.figures.chunks import chunk_gaps

        return chunk_gaps(self.pool)

    @cached_property
    def itl(self) -> Gaps:
        from servemark.harness.figures.chunks import one_token_each, token_gaps

        return self.icl if one_token_each(self.pool) else token_gaps(self.pool)

    @cached_property
    def first_tokens(self) -> Floats:
        from servemark.harness.figures.chunks import first_chunk_tokens

        return first_chunk_tokens(self.frame)

    @cached_property
    def due(self) -> dict[str, Due]:
        """The deadlines of each class."""
        names = sorted(set(self.frame["class_"].tolist())) or [""]
        return {name: due_of(self.slo, name) for name in names}

    @cached_property
    def deadlines(self) -> Deadlines:
        import numpy as np

        from servemark.harness.figures.chunks import deadlines

        origin, classes = f"{self.origin}_ns", self.frame["class_"].tolist()
        if len(set(self.due.values())) == 1:
            return deadlines(self.frame, origin, *next(iter(self.due.values()))[:2])
        first, each = (np.array([self.due[name][place] for name in classes]) for place in (0, 1))
        return deadlines(self.frame, origin, first, each)

    @cached_property
    def steady_tokens(self) -> Tokens:
        from servemark.harness.figures.chunks import tokens_in

        return tokens_in(self.frame, self.window)


def due_of(slo: Objectives | None, class_: str) -> Due:
    limits = slo.deadlines_ms(class_) if slo is not None else {}
    source = "slo" if limits else "default"
    return Due(limits.get("ttft", TTFT_DEADLINE_MS), limits.get("tpot", TPOT_DEADLINE_MS), source)


METRICS: Registry[Metric] = Registry("metric")


def metric(
    name: str,
    unit: str,
    better: Better = "none",
    kind: Kind = "per_request",
    *,
    origin: Literal["run", "intended", "sent", "none"] = "none",
    window: Literal["steady", "run", "none"] = "steady",
    failures: Literal["worst", "apart"] = "worst",
    vacuous: bool = False,
    needs_slo: bool = False,
    early: bool = False,
) -> Callable[[Callable[[View], Any]], Callable[[View], Any]]:
    """Registers a metric; the function's docstring is its one-line definition."""

    def add(compute: Callable[[View], Any]) -> Callable[[View], Any]:
        about = (compute.__doc__ or "").strip()
        METRICS.register(name)(
            Metric(name, unit, better, kind, origin, window, about, compute, failures, vacuous, needs_slo, early)
        )
        return compute

    return add


def view_of(
    frame: Frame,
    window: Window | None = None,
    slo: Objectives | None = None,
    origin: Origin = "intended",
    whole: Window | None = None,
) -> View:
    """What metrics and SLOs are computed from; windows default to the frame's own."""
    return View(frame, window or frame.steady_window(), whole or frame.whole_window(), slo, origin)
