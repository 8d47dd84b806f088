"""What clients do of their own accord: think before they ask, and hang up when they have waited too long.

Both are pure functions of the seed `arrivals` and a request's index, drawn apart from each other and from all else.
"""

from __future__ import annotations

from servemark.harness.plan.arrivals import ClosedLoop
from servemark.harness.plan.draws import uniform
from servemark.harness.plan.spec import Workload


class Habits:
    """Of the clients of one workload."""

    def __init__(self, spec: Workload, seed: int) -> None:
        self._seed = seed
        self._think = spec.load.think_time if isinstance(spec.load, ClosedLoop) else None
        self._give_up = spec.request.give_up

    def think_ns(self, index: int) -> int:
        """The pause before a request, of a user who has sent another one before."""
        if self._think is None or self._think.never:
            return 0
        return self._think.draw_ns(uniform(self._seed, b"think", index))

    def give_up_ns(self, index: int) -> int | None:
        """How long the client of a request waits; None: to the end."""
        habit, seed = self._give_up, self._seed
        if habit is None or uniform(seed, b"give_up", index) >= habit.share:
            return None
        return max(1, habit.after.draw_ns(uniform(seed, b"give_up.after", index)))
