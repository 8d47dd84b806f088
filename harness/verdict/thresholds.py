"""The one table of limits that decide whether a run counts; docs/verdict.md shows it."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Shares are of 1. A `_warn` limit warns, any other makes the run INVALID where its check says so."""

    client_lag_ms: float = 2.0
    client_lag_share_of_ttft: float = 0.02
    late_turn_ms: float = 10.0
    late_turn_share_of_ttft: float = 0.10
    late_job_ms: float = 2.0
    late_job_share: float = 0.01
    sent_off_share: float = 0.01
    stall_warn_ms: float = 20.0
    stall_ms: float = 500.0
    cpu_warn_share: float = 0.80
    cpu_share: float = 0.95
    coalesced_warn_share: float = 0.10
    coalesced_share: float = 0.50
    wall_step_warn_ms: float = 0.2
    wall_step_ms: float = 2.0
    min_window_s: float = 10.0
    min_requests: int = 64
    trend_z: float = 2.58
    trend_change_warn: float = 0.25
    trend_floor_ms: float = 5.0
    overload_growth: float = 1.5
    overload_share_of_arrivals: float = 0.05
    error_share: float = 0.01
    count_mismatch_share: float = 0.01
    prompt_drift_warn_share: float = 0.005
    prompt_drift_share: float = 0.02
    output_off_share: float = 0.01
    cached_share: float = 0.01
    uncached_share: float = 0.10
    foreign_requests_share: float = 0.01
    foreign_requests: int = 3
    aborted_share: float = 0.8
    unwanted_share: float = 0.5
    uncounted_share: float = 0.01
    outside_ms: float = 20.0
    outside_share: float = 0.2
    below_server_ms: float = 2.0
    below_server_share: float = 0.05
    replica_spread_share: float = 0.25
    throttled_warn_share: float = 0.05
    gpu_slowdown_warn_share: float = 0.01
    gpu_slowdown_share: float = 0.1
    gpu_power_cap_warn_share: float = 0.1
    gpu_silent_s: float = 5.0


THRESHOLDS = Thresholds()


def table() -> dict[str, float]:
    """Name -> default."""
    return {field.name: field.default for field in fields(Thresholds)}  # type: ignore[misc]
