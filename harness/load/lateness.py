"""How late requests came that should have been there before they were due."""

from __future__ import annotations


class Lateness:
    """Requests that were not encoded when they were due."""

    def __init__(self) -> None:
        self.jobs = 0
        self.max_ns = 0

    def note(self, late_ns: int) -> None:
        if late_ns > 0:
            self.jobs += 1
            self.max_ns = max(self.max_ns, late_ns)
