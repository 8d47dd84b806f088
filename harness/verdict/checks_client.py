"""Reasons that lie with the load generator: did it send on time, read on time, and live to the end?"""

from __future__ import annotations

import numpy as np

from servemark.harness.clock import MS, SECOND
from servemark.harness.figures.frame import MISSING, Floats, Frame, Mask
from servemark.harness.figures.stats import interval, percentile
from servemark.harness.verdict.evidence import Evidence, Finding, graded, invalid, passed, reason, warning

_LIGHTER = "Free the client's machine (another core for the server, no other jobs), or lower the load."
_THINKING = "A session's next request is made while its user thinks: give turns some ms for it, or lower the load."


@reason("interrupted")
def interrupted(evidence: Evidence) -> Finding:
    """The run was stopped by hand before its end."""
    if any(report.stop_reason == "interrupted" for report in evidence.reports):
        return invalid("The run was interrupted.", "Run it again to the end.")
    return passed("The run was not interrupted.")


@reason("generator_lost")
def generator_lost(evidence: Evidence) -> Finding:
    """The load generator ended without its report, as after a kill or a crash."""
    if not evidence.reports or any(report.stop_reason == "generator_lost" for report in evidence.reports):
        return invalid("The load generator was lost before the run ended.", "Look at its last output and run again.")
    return passed("The load generator reported its end.")


@reason("server_lost")
def server_lost(evidence: Evidence) -> Finding:
    """The server was gone before the end."""
    if any(report.stop_reason == "server_lost" for report in evidence.reports):
        return invalid("The server was lost during the run.", "Look at the server's log, start it and run again.")
    return passed("The server was there to the end.")


@reason("engine_died")
def engine_died(evidence: Evidence) -> Finding:
    """The engine that was launched for the run ended before the run did."""
    if evidence.engine_end is not None:
        return invalid(f"The engine {evidence.engine_end}", "Look at engine.log in the run's folder, and run again.")
    return passed("No engine that was launched for the run ended before it.")


@reason("client_lag")
def client_lag(evidence: Evidence) -> Finding:
    """Requests left late: p99 of sent - intended in an open loop without a cap, and of the later turns of sessions in
    a closed loop, these from when they were made; a warning until that is proven."""
    rows, turns = evidence.frame.measured, evidence.frame["turn"] > 0
    if not evidence.paced:
        if evidence.cap is not None or not (rows & turns).any():
            return passed("Sending late is not judged where slots or a cap decide when a request leaves.")
        rows = rows & turns  # their slot is theirs already
    lags = _known(evidence.frame.ms_between("intended_ns", "sent_ns") - _made_late_ms(evidence.frame), rows)
    lag = percentile(lags, 99)
    if lag is None:
        return passed("No measured request was sent, so no lag is known.")
    limit = _allowed_ms(evidence, rows)
    message = f"The p99 of sent - intended is {lag:.2f} ms; {limit:.2f} ms are allowed."
    if _proven(lags, limit):
        return invalid(message, _LIGHTER, lag, limit)
    return warning(message, _LIGHTER, lag, limit) if lag > limit else passed(message, lag, limit)


@reason("late_turns")
def late_turns(evidence: Evidence) -> Finding:
    """Later turns of sessions were made after their think time was over, and their latencies hold that time."""
    rows = evidence.frame.measured & (evidence.frame["ready_ns"] != MISSING)
    delays = _known(_made_late_ms(evidence.frame), rows)
    delay = percentile(delays, 99)
    if delay is None:
        return passed("No session had a later turn.")
    limits, limit = evidence.thresholds, _allowed_ms(evidence, rows)
    message = (
        f"{(delays > 0).mean():.0%} of the later turns were made after their think time, "
        f"the p99 {delay:.2f} ms; {limit:.2f} ms are allowed."
    )
    most = max(limits.late_turn_ms, limits.late_turn_share_of_ttft * _median_ttft_ms(evidence, rows))
    if _proven(delays, most):
        return invalid(message, _THINKING, delay, most)
    return warning(message, _THINKING, delay, limit) if delay > limit else passed(message, delay, limit)


def _made_late_ms(frame: Frame) -> Floats:
    """How long after its intended time a later turn was there to be sent; 0 for all that is made ahead."""
    late: Floats = np.nan_to_num(frame.ms_between("intended_ns", "ready_ns")).clip(min=0.0)
    return late


def _known(values: Floats, rows: Mask) -> Floats:
    ordered: Floats = np.sort(values[rows & ~np.isnan(values)])
    return ordered


def _allowed_ms(evidence: Evidence, rows: Mask) -> float:
    limits = evidence.thresholds
    return max(limits.client_lag_ms, limits.client_lag_share_of_ttft * _median_ttft_ms(evidence, rows))


def _median_ttft_ms(evidence: Evidence, rows: Mask) -> float:
    return percentile(_known(evidence.view.since_ms("first_token_ns"), rows & evidence.frame.ok), 50) or 0.0


def _proven(ordered: Floats, limit: float) -> bool:
    """Of few requests the p99 is the worst one, and one hiccup says little: the interval's lower end must be late."""
    least = interval(ordered, 99)[0]
    return least is not None and least > limit


@reason("late_jobs")
def late_jobs(evidence: Evidence) -> Finding:
    """Requests were not encoded when they were due."""
    limits = evidence.thresholds
    late = sum(report.late_jobs for report in evidence.reports)
    issued = sum(report.issued for report in evidence.reports)
    worst = max((report.max_late_job_ns for report in evidence.reports), default=0) / MS
    if not late or worst <= limits.late_job_ms:
        return passed(f"No request was encoded more than {limits.late_job_ms:g} ms late.", worst, limits.late_job_ms)
    message = f"{late} of {issued} requests were not encoded when due, the worst {worst:.1f} ms late."
    remedy = "Lower the rate or the prompt length, or give the client another core."
    if late > limits.late_job_share * issued:
        return invalid(message, remedy, worst, limits.late_job_ms)
    return warning(message, remedy, worst, limits.late_job_ms)


@reason("loop_stalls")
def loop_stalls(evidence: Evidence) -> Finding:
    """The client's event loop was held up; the kernel still stamps arrivals, but sends and user stamps come late."""
    worst = max((report.max_stall_ns for report in evidence.reports), default=0) / MS
    stalls = sum(report.stalls for report in evidence.reports)
    message = f"The event loop was held {stalls} times, {worst:.1f} ms at worst."
    return graded(message, _LIGHTER, worst, evidence.thresholds.stall_warn_ms, evidence.thresholds.stall_ms)


@reason("client_cpu")
def client_cpu(evidence: Evidence) -> Finding:
    """A worker used nearly all of its core."""
    if not evidence.reports:
        return passed("No worker reported its CPU time.")
    share = max(report.cpu_ns / max(1, report.ended_ns - report.started_ns) for report in evidence.reports)
    limits = evidence.thresholds
    message = f"The load generator used {share:.0%} of one core."
    return graded(message, "Lower the load; one worker is one core.", share, limits.cpu_warn_share, limits.cpu_share)


@reason("coalesced_reads")
def coalesced_reads(evidence: Evidence) -> Finding:
    """Many reads held several token events, whose stamps are then one."""
    rows, limits = evidence.frame.measured, evidence.thresholds
    reads = int(evidence.frame["reads"][rows].sum())
    share = int(evidence.frame["coalesced_reads"][rows].sum()) / reads if reads else 0.0
    message = f"{share:.1%} of reads held several token events."
    remedy = "The client read late or the server writes in batches: lower the load, or read ICL in place of ITL."
    return graded(message, remedy, share, limits.coalesced_warn_share, limits.coalesced_share)


@reason("wall_step")
def wall_step(evidence: Evidence) -> Finding:
    """The wall clock, which the kernel stamps with, was set during the run."""
    if not (evidence.frame["stamp"] == "kernel").any():
        return passed("No stamp rests on the wall clock.")
    step = max((abs(report.wall_step_ns) for report in evidence.reports), default=0) / MS
    message = f"The wall clock moved by {step:.3f} ms against the monotonic clock during the run."
    remedy = "Let time synchronisation settle (or pause it) and run again."
    return graded(message, remedy, step, evidence.thresholds.wall_step_warn_ms, evidence.thresholds.wall_step_ms)


@reason("user_stamps", "warning")
def user_stamps(evidence: Evidence) -> Finding:
    """Stamps were taken in user space, so a busy client moves them."""
    rows = evidence.frame.measured
    count = int((evidence.frame["stamp"][rows] == "user").sum())
    share = count / max(1, evidence.measured)
    message = f"{share:.0%} of requests have user-space stamps."
    remedy = "Measure on Linux for stamps by the kernel, and keep the client's machine idle."
    return graded(message, remedy, share, 0.0, None)


@reason("throttled", "warning")
def throttled(evidence: Evidence) -> Finding:
    """The client's own cap on requests per minute held requests back, so throughput is the cap's."""
    held, issued = (sum(getattr(each, name) for each in evidence.reports) for name in ("throttled", "issued"))
    if not held:
        return passed("No request waited for a cap on requests per minute.")
    share, limit = held / max(1, issued), evidence.thresholds.throttled_warn_share
    mean_s = sum(report.throttled_ns for report in evidence.reports) / held / SECOND
    message = f"The cap on requests per minute held back {share:.0%} of the requests, for {mean_s:.3g} s on average."
    remedy = "Throughput is the cap's and not the server's; raise --requests-per-minute where the endpoint allows it."
    return graded(message, remedy, share, limit, None)
