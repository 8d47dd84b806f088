"""One monotonic clock for all stamps, and its distance to the wall clock that the kernel stamps with."""

from __future__ import annotations

import time

now_ns = time.monotonic_ns

MS = 1_000_000
SECOND = 1_000_000_000


def wall_offset_ns(samples: int = 200) -> int:
    """CLOCK_REALTIME - CLOCK_MONOTONIC in ns.

    Each sample reads wall between two monotonic reads; the one with the narrowest bracket is the best known.
    """
    best_width, best_offset = None, 0
    for _ in range(samples):
        before = time.monotonic_ns()
        wall = time.time_ns()
        after = time.monotonic_ns()
        if best_width is None or after - before < best_width:
            best_width, best_offset = after - before, wall - (before + after) // 2
    return best_offset
