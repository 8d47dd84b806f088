"""Reasons that lie with the load: was it what was asked, long enough, steady, and answered?"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from servemark.harness.clock import MS
from servemark.harness.figures.frame import MISSING, Floats
from servemark.harness.figures.metrics import METRICS, errors
from servemark.harness.figures.objectives import view_of_class
from servemark.harness.figures.stats import PERCENTS, Trend, certified, samples_needed, trend
from servemark.harness.figures.summary import sample_count
from servemark.harness.verdict.evidence import Evidence, Finding, graded, invalid, passed, reason, warning

_WAITED_OUT = ("timeout_first_event", "timeout_gap", "timeout_total", "abandoned", "gave_up")


@reason("no_success")
def no_success(evidence: Evidence) -> Finding:
    """No measured request succeeded."""
    good = int((evidence.frame.measured & evidence.frame.ok).sum())
    if good:
        return passed(f"{good} of {evidence.measured} measured requests succeeded.", good)
    if not evidence.measured:
        return invalid("No request was measured.", "Run longer, or shorten the warm-up.", 0)
    found = errors(evidence.frame) | {"gave_up": int((evidence.frame.measured & evidence.frame.gave_up).sum())}
    kinds = ", ".join(f"{kind} {count}" for kind, count in found.items() if count)
    return invalid(f"None of {evidence.measured} requests succeeded ({kinds}).", "Look at error_detail.", 0)


@reason("error_share")
def error_share(evidence: Evidence) -> Finding:
    """More requests failed than is allowed."""
    kinds = errors(evidence.frame)
    share = sum(kinds.values()) / max(1, evidence.measured)
    if not kinds:
        return passed("No measured request failed.", 0.0, evidence.thresholds.error_share)
    listed = ", ".join(f"{kind} {count}" for kind, count in kinds.items())
    message = f"{share:.2%} of {evidence.measured} requests failed ({listed})."
    remedy = "Look at error_detail; timeouts and abandoned requests speak for too high a load."
    return graded(message, remedy, share, 0.0, evidence.thresholds.error_share)


@reason("requests_sent")
def requests_sent(evidence: Evidence) -> Finding:
    """Requests sent in the window differ from those that the drawn schedule puts there."""
    planned = evidence.planned_in_window
    if evidence.loop == "closed" or not planned:
        return passed("There is no schedule to hold the number of requests against.")
    # A session's later turns follow on answers and stand in no schedule.
    first = evidence.frame.measured & (evidence.frame["turn"] == 0)
    sent = evidence.frame["sent_ns"][first]
    inside = (sent != MISSING) | evidence.frame.gave_up[first]  # who gave up in the queue of a cap had come
    if evidence.paced:  # the last arrival is the window's end and may leave that much later
        inside &= sent <= evidence.window.end_ns + evidence.thresholds.client_lag_ms * MS
    off = abs(int(inside.sum()) / planned - 1)
    message = f"{int(inside.sum())} of {planned} planned requests were sent in the window."
    remedy = "The client fell behind its schedule: lower the rate, or look at client_lag and late_jobs."
    return graded(message, remedy, off, None, evidence.thresholds.sent_off_share)


@reason("schedule_finished")
def schedule_finished(evidence: Evidence) -> Finding:
    """The schedule was not carried out to its end."""
    if all(report.schedule_finished or report.stop_reason != "finished" for report in evidence.reports):
        return passed("The schedule was carried out.")
    return invalid("Not every planned request was sent.", "Lower the load or lengthen the run.")


@reason("drain", "warning")
def drain(evidence: Evidence) -> Finding:
    """Requests still in flight at the drain limit were abandoned; they count as failed."""
    if all(report.drained for report in evidence.reports):
        return passed("All requests in flight at the end were answered.")
    count = errors(evidence.frame).get("abandoned", 0)
    message = f"{count} measured requests were abandoned at the drain limit and count as failed."
    return warning(message, "Lengthen the drain limit, or lower the load.", count, 0)


@reason("sample_size")
def sample_size(evidence: Evidence) -> Finding:
    """Too few requests for a percentile that an SLO or a flag asks for."""
    for whose, name, percent, n in _asked(evidence):
        needed = samples_needed(percent)
        if n < needed:
            message = f"{name} p{percent:g} is asked of {n} requests{whose}; it needs {needed}."
            return invalid(message, f"Measure {needed} requests or ask for a lower percentile.", n, needed)
    least = evidence.thresholds.min_requests
    if evidence.measured < least:
        message = f"{evidence.measured} requests certify no percentile from p90 up."
        return warning(message, f"Measure {least} requests or more.", evidence.measured, least)
    best = certified(evidence.measured, PERCENTS)[-1].replace("_", ".")
    return passed(f"{evidence.measured} requests certify percentiles up to {best}.", evidence.measured, least)


@reason("short_run", "warning")
def short_run(evidence: Evidence) -> Finding:
    """The steady window is shorter than its minimum."""
    # Where all is intended at once nothing is steady, and what counts is how long it took.
    what, window = "steady window", evidence.window
    if evidence.at_once:
        what, window = "whole run", evidence.frame.whole_window()
    seconds, least = window.seconds, evidence.thresholds.min_window_s
    message = f"The {what} lasted {seconds:.1f} s."
    if seconds >= least:
        return passed(message, seconds, least)
    return warning(message, f"Measure {least:g} s or more.", seconds, least)


@reason("short_warmup", "warning")
def short_warmup(evidence: Evidence) -> Finding:
    """Warm-up was shorter than a typical request, so the window opens on a server that is still filling."""
    if evidence.at_once:
        return passed("All requests were intended at once: no window was to be steady.")
    intended, measured = evidence.frame["intended_ns"], evidence.frame.measured
    if not measured.any():
        return passed("No request was measured.")
    seconds = (evidence.window.start_ns - int(intended.min())) / 1e9 if not measured[0] else 0.0
    needed = (evidence.metrics.get("e2e", {}).get("p50") or 0.0) / 1e3
    if 0 < seconds >= needed:
        return passed(f"Warm-up lasted {seconds:.1f} s; half of the requests take {needed:.1f} s.", seconds, needed)
    message = f"Warm-up lasted {seconds:.1f} s; half of the requests take {needed:.1f} s or more."
    return warning(message, f"Use --warmup {max(1, round(2 * needed))}s.", seconds, needed)


@reason("not_steady", "warning")
def not_steady(evidence: Evidence) -> Finding:
    """TTFT or the server's queue moved one way over the window."""
    if evidence.at_once:
        return passed("All requests were intended at once: no window was to be steady.")
    if evidence.varies:
        return passed("The rate changes by plan: no window was to be steady.")
    limits, found = evidence.thresholds, trend(_waits(evidence))
    remedy = "Lengthen the warm-up, lower the load, or read the window's parts."
    if found is not None and _moved(found, limits.trend_z) and abs(found.late - found.early) > limits.trend_floor_ms:
        change = found.late / found.early - 1 if found.early > 0 else np.inf
        if abs(change) > limits.trend_change_warn:
            message = f"Median TTFT moved from {found.early:.4g} to {found.late:.4g} ms over the window."
            value = float(change) if np.isfinite(change) else None
            return warning(message, remedy, value, limits.trend_change_warn)
    queue = trend(_queue(evidence))
    if queue is not None and _grew(queue, evidence) and queue.late - queue.early >= 2:
        message = f"The server's queue grew from {queue.early:.4g} to {queue.late:.4g} requests over the window."
        return warning(message, remedy, queue.late - queue.early, 2)
    return passed("Neither TTFT nor the server's queue shows a trend over the window.")


@reason("overloaded")
def overloaded(evidence: Evidence) -> Finding:
    """An open loop brought more than the server carries: what is in flight only grew, and waiting with it."""
    if evidence.loop == "closed":
        return passed("A closed loop cannot bring more than the server carries.")
    flying = trend(_in_flight(evidence))
    growth, least = 0.0, evidence.thresholds.overload_share_of_arrivals * evidence.measured
    if flying is not None and _grew(flying, evidence):
        growth = flying.late - flying.early
    waits, queue = trend(_waits(evidence)), trend(_queue(evidence))
    waiting = any(each is not None and _grew(each, evidence) for each in (waits, queue))
    if flying is None or growth <= max(least, 2) or not waiting:
        return passed("Requests in flight did not grow without end.", growth, least)
    message = (
        f"Requests in flight grew from {flying.early:.0f} to {flying.late:.0f} and waiting times with them: "
        "latencies here tell how long the run was, not how fast the server is."
    )
    if evidence.varies:
        return warning(message, "The rate changes by plan: read latencies by its stages.", growth, least)
    cap = f", or raise the cap of {evidence.cap} in flight, which holds requests back" if evidence.cap else ""
    remedy = f"Lower --rate{cap}; or claim the throughput alone, with --allow overloaded."
    return invalid(message, remedy, growth, least)


def _asked(evidence: Evidence) -> Iterator[tuple[str, str, float, int]]:
    """Of each percentile that is asked for: whose requests, the metric, the percentile, how many samples there are."""
    limits = evidence.slo.limits if evidence.slo else ()
    asked = [(limit.metric, limit.percent) for limit in limits if limit.percent]
    for name, percent in asked + [("ttft", percent) for percent in evidence.asked_percents]:
        yield "", name, percent, _samples(evidence, name)
    for class_, own in (evidence.slo.classes if evidence.slo else {}).items():
        for limit in own.limits:
            if limit.percent:
                view = view_of_class(own, evidence.view, class_)
                yield f" of class {class_}", limit.metric, limit.percent, sample_count(METRICS[limit.metric], view)


def _samples(evidence: Evidence, name: str) -> int:
    entry = evidence.metrics.get(name, {})
    pooled = METRICS[name].kind == "pooled"
    return int(entry.get("n_requests" if pooled else "n_adj") or entry.get("n") or 0)


def _moved(found: Trend, z: float) -> bool:
    return abs(found.z) > z


def _grew(found: Trend, evidence: Evidence) -> bool:
    limits = evidence.thresholds
    return found.z > limits.trend_z and found.late > limits.overload_growth * found.early


def _waits(evidence: Evidence) -> Floats:
    """TTFT of the measured requests in order; infinite where a request was given up waiting."""
    frame = evidence.frame
    waits = evidence.view.since_ms("first_token_ns")
    waits = np.where(np.isnan(waits) & np.isin(frame["error"].astype(str), _WAITED_OUT), np.inf, waits)
    waits = waits[frame.measured]
    return waits[~np.isnan(waits)]


def _queue(evidence: Evidence) -> Floats:
    """The server's waiting requests at its readings inside the window."""
    start, end = evidence.window.start_ns, evidence.window.end_ns
    inside = [sample.values for sample in evidence.server if start <= sample.at_ns <= end]
    return np.array([values["waiting"] for values in inside if "waiting" in values], dtype=np.float64)


def _in_flight(evidence: Evidence, points: int = 36) -> Floats:
    """Requests intended and not yet ended at evenly spaced moments of the window."""
    if evidence.window.seconds <= 0:
        return np.empty(0)
    moments = np.linspace(evidence.window.start_ns, evidence.window.end_ns, points + 1)[1:]
    ended = np.sort(evidence.frame["done_ns"][evidence.frame["done_ns"] != MISSING])
    begun = np.searchsorted(evidence.frame["intended_ns"], moments, side="right")
    return (begun - np.searchsorted(ended, moments, side="right")).astype(np.float64)
