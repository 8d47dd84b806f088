"""Reasons that lie with several replicas behind one run: are they alike, and did they answer alike?"""

from __future__ import annotations

import numpy as np

from servemark.harness.figures.frame import Floats
from servemark.harness.figures.stats import interval, percentile
from servemark.harness.verdict.evidence import Evidence, Finding, passed, reason, warning

_ALIKE = "Start all replicas alike."


@reason("replica_versions", "warning")
def replica_versions(evidence: Evidence) -> Finding:
    """The replicas are of different versions."""
    versions = evidence.versions
    if len(versions) > 1:
        message = f"The replicas are of {len(versions)} versions: {', '.join(versions)}."
        return warning(message, _ALIKE, len(versions), 1)
    return passed("No two replicas are known to be of different versions.")


@reason("replicas_uneven", "warning")
def replicas_uneven(evidence: Evidence) -> Finding:
    """One replica answered later than another, or not at all."""
    waits = _waits(evidence)
    if len(waits) < 2:
        return passed("The requests went to one server.")
    silent = [url for url, each in waits.items() if not len(each)]
    if silent and len(silent) < len(waits):
        message = f"No request to {', '.join(silent)} was answered."
        return warning(message, "See that it runs; the figures are those of the others.", len(silent), 0)
    if silent:
        return passed("No replica answered.")
    medians = {url: percentile(each, 50) or 0.0 for url, each in waits.items()}
    slow, fast = max(medians, key=medians.__getitem__), min(medians, key=medians.__getitem__)
    late, early, limits = medians[slow], medians[fast], evidence.thresholds
    spread = late / early - 1 if early > 0 else 0.0
    message = f"Median TTFT is {late:.4g} ms at {slow} and {early:.4g} ms at {fast}."
    apart = late - early > limits.trend_floor_ms and _apart(waits[fast], waits[slow])
    if spread > limits.replica_spread_share and apart:
        remedy = f"Read the groups by url: the slower one makes the tail. {_ALIKE} Or try --balance least-in-flight."
        return warning(message, remedy, spread, limits.replica_spread_share)
    return passed(message, spread, limits.replica_spread_share)


def _waits(evidence: Evidence) -> dict[str, Floats]:
    """Of each replica the sorted TTFT of measured requests; failed ones are none."""
    frame, waits = evidence.frame, evidence.view.since_ms("first_token_ns")
    urls = frame["url"]
    answered = frame.measured & frame.ok & ~np.isnan(waits)
    there = sorted(set(urls[frame.measured].tolist()))
    return {url: np.sort(waits[answered & np.asarray(urls == url, dtype=np.bool_)]) for url in there}


def _apart(fast: Floats, slow: Floats) -> bool:
    """The intervals of the two medians do not touch."""
    (_, most), (least, _) = interval(fast, 50), interval(slow, 50)
    return most is not None and least is not None and most < least
