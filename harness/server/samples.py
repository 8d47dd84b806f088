"""Readings of servers' metrics as data: several replicas' as one, and how far a counter moved."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from servemark.harness.server.metric_names import LEVELS, SERVER_METRICS
from servemark.harness.types import ServerSample


def combined(samples: Sequence[ServerSample]) -> ServerSample:
    """One reading of each replica, taken together, as a reading of the whole deployment.

    A level counts where every replica tells it: the sum of some would look like a drop. A counter that one of them
    does not tell yet has not begun to count there.
    """
    named = dict.fromkeys(name for sample in samples for name in sample.values)
    values = {}
    for name in named:
        told = [sample.values[name] for sample in samples if name in sample.values]
        if name not in LEVELS or len(told) == len(samples):
            values[name] = max(told) if _largest(name) else sum(told)
    return ServerSample(max(sample.at_ns for sample in samples), values)


def _largest(name: str) -> bool:
    return name in SERVER_METRICS and SERVER_METRICS[name].replicas == "max"


def whole(samples: Sequence[ServerSample]) -> list[ServerSample]:
    """The readings of the whole deployment, in order."""
    return [sample for sample in samples if sample.url is None]


def by_replica(samples: Sequence[ServerSample]) -> dict[str, list[ServerSample]]:
    """The readings of each replica by its address; empty where there is one server only."""
    found: dict[str, list[ServerSample]] = {}
    for sample in samples:
        if sample.url is not None:
            found.setdefault(sample.url, []).append(sample)
    return found


def growth(samples: Sequence[ServerSample], name: str) -> float | None:
    """How far a counter moved from the first reading to the last.

    None where it is not told, or fell on the way, as it does when a server starts anew. A counter that the first
    reading does not have had not begun to count.
    """
    values = [sample.values[name] for sample in samples if name in sample.values]
    if len(samples) < 2 or not values:
        return None
    if name not in samples[0].values:
        values.insert(0, 0.0)
    if any(later < earlier for earlier, later in pairwise(values)):
        return None
    return values[-1] - values[0]


def mean_of(samples: Sequence[ServerSample], name: str) -> tuple[float, int] | None:
    """Mean in seconds of what a histogram saw between the first reading and the last, and of how many; None: untold."""
    total, count = growth(samples, f"{name}_sum"), growth(samples, f"{name}_count")
    return (total / count, round(count)) if total is not None and count else None
