"""How the times that are sent differ from those that a prompt source recorded, in sentences for the result."""

from __future__ import annotations

from collections.abc import Iterator

from servemark.harness.plan.arrivals import SECOND, Trace
from servemark.harness.plan.sources import Prepared
from servemark.harness.plan.spec import Workload
from servemark.harness.units import format_duration


def time_notes(spec: Workload, source: Prepared) -> Iterator[str]:
    """Nothing where a source has no recorded times, or they are kept."""
    if not spec.source.timed or not source.size:
        return
    if not isinstance(spec.load, Trace):
        yield f"the recorded times are not used: arrivals are {spec.load.arrivals}"
        return
    if spec.load.all_at_once:
        yield "the recorded times are not used: all requests are intended at once"
        return
    scale = spec.load.scale(source)
    if scale != 1:
        recorded = _rate(source, source.size)
        rates = f": {recorded * scale:.4g} requests a second in place of {recorded:.4g}" if recorded else ""
        yield f"times run {scale:.4g} times as fast as recorded{rates}"
    yield from _cut(spec, source.size, source.offset_ns(source.size - 1) / scale)


def _rate(source: Prepared, size: int) -> float:
    """The mean rate of the recorded times; 0 where they are all the same."""
    span_ns = source.offset_ns(size - 1) - source.offset_ns(0)
    return (size - 1) * SECOND / span_ns if span_ns else 0.0


def _cut(spec: Workload, source_size: int, last_ns: float) -> Iterator[str]:
    """Where the run ends before the last row is due."""
    run = spec.run
    if run.duration is not None and not run.warmup.requests and last_ns >= run.warmup.duration_ns + run.duration:
        ends = format_duration(run.warmup.duration_ns + run.duration)
        yield f"the run ends after {ends}, before the last of these rows"
    if run.requests is not None and run.requests + run.warmup.requests < source_size:
        yield f"the run ends after {run.requests:,} of these rows that count"
