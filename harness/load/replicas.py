"""The addresses of a run as the load generator finds them: what is in flight on each, and which are gone."""

from __future__ import annotations

from servemark.harness.clock import SECOND
from servemark.harness.load.balance import BALANCES, Replica
from servemark.harness.load.messages import Job, Plan

_LOST_AFTER_NS = 5 * SECOND
_LOST_FAILURES = 20


class Replicas:
    """Replicas are named by their place among the plan's addresses."""

    def __init__(self, plan: Plan) -> None:
        self._each = tuple(Replica() for _ in plan.addresses)
        self._balance = BALANCES[plan.balance]() if len(self._each) > 1 else None

    def choose(self, job: Job) -> int:
        return 0 if self._balance is None else self._balance.choose(job, self._each)

    def began(self, place: int) -> None:
        self._each[place].in_flight += 1

    def ended(self, place: int) -> None:
        self._each[place].in_flight -= 1

    def answered(self, place: int) -> None:
        """It took a connection, or answered over one."""
        self._each[place].refusals = 0

    def refused(self, place: int, at_ns: int) -> bool:
        """True when all are gone: many refusals in a row, and each for some seconds."""
        self._each[place].refused(at_ns)
        many = sum(each.refusals for each in self._each) >= _LOST_FAILURES
        return many and all(each.refusals and at_ns - each.refused_since_ns > _LOST_AFTER_NS for each in self._each)
