"""What a moment of the run counts as."""

from __future__ import annotations

from servemark.harness.clock import SECOND, now_ns
from servemark.harness.load.messages import Plan
from servemark.harness.types import Phase


def phase_of(plan: Plan, started_ns: int, index: int, intended_ns: int) -> Phase:
    """By number where the warm-up is one, else by the intended time."""
    early = index < plan.warmup_requests or intended_ns < started_ns + plan.warmup_ns
    return "warmup" if early else "measured"


class CountedTime:
    """The planned time that counts. After a counted warm-up it begins with the first request that does."""

    def __init__(self, plan: Plan, started_ns: int) -> None:
        self._plan = plan
        self._begin_ns = None if plan.warmup_requests else started_ns + plan.warmup_ns

    def saw(self, index: int, intended_ns: int) -> bool:
        """A request is on its way; True where the time begins with it."""
        if self._begin_ns is not None or index < self._plan.warmup_requests:
            return False
        self._begin_ns = intended_ns
        return True

    @property
    def end_ns(self) -> int | None:
        """None where it has not begun, or where the schedule's end decides."""
        if self._plan.duration_ns is None or self._begin_ns is None:
            return None
        return self._begin_ns + self._plan.duration_ns

    @property
    def seconds_left(self) -> float | None:
        end_ns = self.end_ns
        return None if end_ns is None else max(0.0, (end_ns - now_ns()) / SECOND)
