"""What the verdict is made of: the evidence of a run, a finding for each reason, and the registry of reasons."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from servemark.harness.clock import SECOND
from servemark.harness.figures.frame import MISSING, Frame, Window
from servemark.harness.figures.slo import Slo
from servemark.harness.figures.view import Origin, View, view_of
from servemark.harness.plan.cache_rate import Sharing
from servemark.harness.registry import Registry
from servemark.harness.server.caching import CacheState
from servemark.harness.server.samples import growth
from servemark.harness.types import GpuSample, Promises, ServerSample, WorkerReport
from servemark.harness.verdict.hits import HitRate, hit_rate
from servemark.harness.verdict.thresholds import THRESHOLDS, Thresholds

Severity = Literal["pass", "warning", "invalid"]


@dataclass(frozen=True)
class Evidence:
    """All that a verdict is drawn from. `frame` holds every phase; `window` is the steady window.

    `metrics` is the summary of the same frame. `planned_in_window` counts the measured requests of the drawn schedule
    (None where there is no such plan: a closed loop). `sharing`
    says what the planned prompts begin with, the chat template included.
    """

    frame: Frame
    window: Window
    loop: Literal["open", "closed"]
    metrics: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    reports: tuple[WorkerReport, ...] = ()
    server: tuple[ServerSample, ...] = ()
    gpu: tuple[GpuSample, ...] = ()
    gpu_facts: Mapping[str, Any] = field(default_factory=dict)
    """What a GpuWatch says of the GPUs it read."""
    cap: int | None = None
    varies: bool = False
    """The rate changes by plan: nothing is expected to be steady."""
    stages: tuple[Window, ...] = ()
    """Of a load that has some: when each was to begin and to end."""
    planned_in_window: int | None = None
    slo: Slo | None = None
    asked_percents: tuple[float, ...] = ()
    prompts_unique: bool = True
    sharing: Sharing = field(default_factory=Sharing)
    cache: CacheState = field(default_factory=CacheState)
    force_output_length: bool = False
    promises: Promises | None = None
    versions: tuple[str, ...] = ()
    """The different ones that the servers tell."""
    engine_end: str | None = None
    """How an engine that was started for the run ended before its end, and its last words."""
    origin: Origin = "intended"
    thresholds: Thresholds = THRESHOLDS

    @property
    def paced(self) -> bool:
        """An open loop without a cap: every request is to leave at its intended time."""
        return self.loop == "open" and self.cap is None

    @cached_property
    def at_once(self) -> bool:
        """All that counts was intended at one moment: there is no steady window to judge."""
        intended = self.frame["intended_ns"][self.frame.measured]
        return len(intended) > 1 and int(intended[0]) == int(intended[-1])

    @cached_property
    def view(self) -> View:
        return view_of(self.frame, self.window, self.slo, self.origin)

    @cached_property
    def measured(self) -> int:
        return int(self.frame.measured.sum())

    @cached_property
    def hits(self) -> HitRate:
        return hit_rate(self.frame, self.server, self.sharing, self.cache.server.block_tokens)

    @cached_property
    def elapsed_s(self) -> float:
        """Time between start and end, the workers' added up."""
        return sum(report.ended_ns - report.started_ns for report in self.reports) / SECOND

    def counter(self, name: str) -> float | None:
        """How far a server's counter moved between its first and last reading; None where it cannot be read."""
        return growth(self.server, name)

    def covers_run(self) -> bool:
        """The first reading of the server came before the first request and the last one after the last."""
        if len(self.server) < 2 or not len(self.frame):
            return False
        sent, done = self.frame["sent_ns"], self.frame["done_ns"]
        if not (sent != MISSING).any() or (done == MISSING).any():
            return False
        return self.server[0].at_ns <= int(sent[sent != MISSING].min()) and self.server[-1].at_ns >= int(done.max())


@dataclass(frozen=True, slots=True)
class Finding:
    """What one reason's function says; `message` holds the figure, `remedy` what to do."""

    severity: Severity
    message: str
    value: float | None = None
    threshold: float | None = None
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Check:
    code: str
    severity: Severity
    value: float | None
    threshold: float | None
    message: str
    remedy: str
    waived: bool = False

    def to_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in Check.__slots__}


@dataclass(frozen=True, slots=True)
class Verdict:
    """`valid` is false where any check is invalid and not waived."""

    valid: bool
    checks: tuple[Check, ...]

    @property
    def reasons(self) -> tuple[Check, ...]:
        """The checks that make the run INVALID."""
        return tuple(check for check in self.checks if check.severity == "invalid" and not check.waived)

    @property
    def warnings(self) -> tuple[Check, ...]:
        """Warnings, and the invalid ones that were waived."""
        return tuple(c for c in self.checks if c.severity == "warning" or (c.severity == "invalid" and c.waived))

    def to_json(self) -> dict[str, Any]:
        return {"valid": self.valid, "checks": [check.to_json() for check in self.checks]}


@dataclass(frozen=True, slots=True)
class Reason:
    """`worst` is how grave a finding can be."""

    code: str
    worst: Severity
    about: str
    judge: Callable[[Evidence], Finding]


CHECKS: Registry[Reason] = Registry("verdict check")


def reason(code: str, worst: Severity = "invalid") -> Callable[[Callable[[Evidence], Finding]], Any]:
    """Registers a reason; the function's docstring says what it catches."""

    def add(judge: Callable[[Evidence], Finding]) -> Callable[[Evidence], Finding]:
        about = " ".join((judge.__doc__ or "").split())
        CHECKS.register(code)(Reason(code, worst, about, judge))
        return judge

    return add


def passed(message: str, value: float | None = None, threshold: float | None = None) -> Finding:
    return Finding("pass", message, value, threshold)


def warning(message: str, remedy: str, value: float | None = None, threshold: float | None = None) -> Finding:
    return Finding("warning", message, value, threshold, remedy)


def invalid(message: str, remedy: str, value: float | None = None, threshold: float | None = None) -> Finding:
    return Finding("invalid", message, value, threshold, remedy)


def graded(message: str, remedy: str, value: float, warn: float | None, limit: float | None) -> Finding:
    """Invalid above `limit`, a warning above `warn`."""
    if limit is not None and value > limit:
        return invalid(message, remedy, value, limit)
    if warn is not None and value > warn:
        return warning(message, remedy, value, warn)
    return passed(message, value, limit if warn is None else warn)
