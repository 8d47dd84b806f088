"""The flat figures of a run's `summary`, and what its server's metrics say over the run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from servemark.results.schema import number, part

if TYPE_CHECKING:
    from servemark.harness.figures.frame import Frame
    from servemark.harness.types import ServerSample

LATENCIES = ("ttft", "ttfa", "itl", "icl", "tpot", "e2e")
PERCENTILES = ("p50", "p90", "p95", "p99", "p99_9")
RATES = (
    "output_tps",
    "input_tps",
    "rps",
    "output_tps_run",
    "input_tps_run",
    "rps_run",
    "offered_rps",
    "goodput",
    "goodput_tps",
    "goodput_share",
    "error_rate",
    "coalesced_share",
)
GAUGES = frozenset({"running", "waiting", "kv_usage"})
"""Server metrics that are levels; the others are counters, of which the difference counts."""


def summary(frame: Frame, metrics: Mapping[str, Any]) -> dict[str, float | None]:
    """`requests*` counts, `<latency>_<percentile>_ms` of the steady window, and the rates, by name."""
    found: dict[str, float | None] = dict(request_counts(frame))
    for name in LATENCIES:
        entry = part(metrics, name)
        found |= {f"{name}_{p}_ms": number(entry[p]) for p in PERCENTILES if p in entry}
    found |= {name: number(part(metrics, name).get("value")) for name in RATES if name in metrics}
    return found


def request_counts(frame: Frame) -> dict[str, float | None]:
    """All phases together, and the measured ones; failures by kind are `failed_<kind>`."""
    ok, measured = frame.ok, frame.measured
    kinds = Counter(frame["error"][~ok].tolist())
    return {
        "requests": len(frame),
        "requests_ok": int(ok.sum()),
        "requests_failed": int((~ok).sum()),
        "requests_measured": int(measured.sum()),
        "requests_measured_ok": int((measured & ok).sum()),
        **{f"failed_{kind}": count for kind, count in kinds.most_common()},
    }


def server_part(samples: Sequence[ServerSample]) -> dict[str, dict[str, float | None]]:
    """`start` and `end` readings, `delta` of the counters (None after a reset), `max` of the levels."""
    if not samples:
        return {"start": {}, "end": {}, "delta": {}, "max": {}}
    start, end = dict(samples[0].values), dict(samples[-1].values)
    counters = [name for name in end if name in start and name not in GAUGES]
    delta = {name: end[name] - start[name] if end[name] >= start[name] else None for name in counters}
    return {
        "start": dict(start),
        "end": dict(end),
        "delta": delta,
        "max": {name: _most(sample.values.get(name) for sample in samples) for name in sorted(GAUGES & end.keys())},
    }


def prefix_hit_rate(server: Mapping[str, Any]) -> float | None:
    """Share of the looked-up prompt tokens that the server's prefix cache had."""
    delta = part(server, "delta")
    hits, queries = number(delta.get("prefix_hits")), number(delta.get("prefix_queries"))
    return hits / queries if hits is not None and queries else None


def _most(values: Iterable[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)
