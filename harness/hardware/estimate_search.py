"""The largest batch that meets objectives, and why none does."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from servemark.harness.hardware.estimate_point import Objectives, Point


def doubled(most: int) -> tuple[int, ...]:
    """1, 2, 4, ... and the largest batch; none where not one fits."""
    return tuple(sorted({most, *(2**power for power in range(most.bit_length()))} - {0}))


def largest(most: int, meeting: Callable[[int], Point | None]) -> Point | None:
    """Of the batches up to `most`; `meeting` gives a point that meets the objectives, else None.

    Latencies only grow with the batch, but for where a prediction goes over to another run: so the largest doubled
    batch that meets them is looked for first, and then between it and the next.
    """
    batches = doubled(most)
    place = next((place for place in reversed(range(len(batches))) if meeting(batches[place])), None)
    if place is None:
        return None
    low, high = batches[place], (*batches, batches[-1] + 1)[place + 1] - 1
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if meeting(middle) else (low, middle - 1)
    return meeting(low)


def misses(goal: Objectives, alone: Point | None) -> Iterator[str]:
    """What a request that is alone on its server misses already; `alone` is its point, None where nothing fits."""
    if alone is None:
        yield "one request does not fit into memory"
        return
    for name, limit, value in goal.pairs(alone):
        if value is None:
            yield f"{name} is not known without an MFU"
        elif limit is not None and value > limit:
            yield f"{name} is {_shown(value)} for a request that is alone"


def _shown(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.3g} ms"
