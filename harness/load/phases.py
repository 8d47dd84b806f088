"""What a moment of the run counts as."""

from __future__ import annotations

from servemark.harness.load.messages import Plan
from servemark.harness.types import Phase


def phase_of(plan: Plan, started_ns: int, index: int, intended_ns: int) -> Phase:
    """By number where the warm-up is one, else by the intended time."""
    early = index < plan.warmup_requests or intended_ns < started_ns + plan.warmup_ns
    return "warmup" if early else "measured"
