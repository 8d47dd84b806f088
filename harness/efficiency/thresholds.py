"""The one table of limits beyond which a figure is evidence, or calls for a suggestion; docs/efficiency.md has it."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Shares are of 1, ratios of a measured value to its floor."""

    possible: float = 1.05
    """No share of a peak can be above 1; what is above this is an error of what was named."""
    mbu: float = 0.6
    mfu: float = 0.4
    prefill_share: float = 0.5
    busy: float = 0.5
    tie: float = 0.67
    """Of bytes and arithmetic, time at the peaks of the one that needs less, of the other's: from there both bind."""
    kv_usage: float = 0.95
    preempted_share: float = 0.01
    waiting_share: float = 0.5
    waiting: float = 1.0
    ttft_ratio: float = 5.0
    tpot_ratio: float = 2.5
    few_clients: float = 0.5
    kept_up: float = 0.97
    weights_share: float = 0.4
    kv_share: float = 0.3
    low_batch: float = 8.0
    accepted: float = 0.5
    prompts_share: float = 0.3
    cached: float = 0.2
    long_prompt: float = 1000.0
    stall_ratio: float = 3.0
    memory_free: float = 0.7
    throttled: float = 0.05


THRESHOLDS = Thresholds()


def table() -> dict[str, float]:
    """Name -> value."""
    return {field.name: getattr(THRESHOLDS, field.name) for field in fields(Thresholds)}
