"""Percentiles without interpolation, their intervals, and how many samples they need.

`percent` is 50, 99, 99.9 ... ; ranks are 1-based. Samples may hold +inf (failed requests), never nan.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

PERCENTS: tuple[float, ...] = (50, 90, 95, 99, 99.9)
CONFIDENCE = 0.95
CERTAINTY = 0.99
"""MLPerf's confidence c that a certified percentile holds."""
AUTOCORRELATION_WARNING = 0.2
RESAMPLES = 500
_MAX_CLUSTERS = 10_000
_MAX_VALUES = 4_000_000
_EDGES = 41
_WHOLE = 100_000


def label(percent: float) -> str:
    """99.9 -> "p99_9"."""
    return f"p{percent:g}".replace(".", "_")


def _thousandths(percent: float) -> int:
    """Percent as an integer of 1/1000 %: 0.999 * 1000 must be rank 999, whatever floats think of it."""
    return round(percent * 1000)


def rank(percent: float, n: int) -> int:
    """Nearest rank (`inverted_cdf`): the smallest k with k / n >= percent / 100."""
    return max(1, -(-_thousandths(percent) * n // _WHOLE))


def percentile(ordered: npt.NDArray[Any], percent: float) -> float | None:
    """Of a sorted sample; None of an empty one."""
    return float(ordered[rank(percent, len(ordered)) - 1]) if len(ordered) else None


@lru_cache(maxsize=4096)
def interval_ranks(n: int, percent: float, confidence: float = CONFIDENCE) -> tuple[int | None, int | None]:
    """Ranks between which the true percentile lies with at least `confidence`; None where n is too small to say.

    The number of samples below the percentile is binomial(n, p), assuming they are independent.
    """
    from scipy.special import bdtr

    share, tail = _thousandths(percent) / _WHOLE, (1 - confidence) / 2
    low = _first(n + 1, lambda k: bdtr(k, n, share) > tail)
    high = _first(n + 1, lambda k: bdtr(k, n, share) >= 1 - tail) + 1
    return (low if low >= 1 else None), (high if high <= n else None)


def interval(ordered: npt.NDArray[Any], percent: float) -> list[float | None]:
    """[low, high] of a sorted sample; None where the sample cannot bound it."""
    ranks = interval_ranks(len(ordered), percent) if len(ordered) else (None, None)
    return [None if k is None else float(ordered[k - 1]) for k in ranks]


def autocorrelation(values: npt.NDArray[Any]) -> float | None:
    """Lag-1 autocorrelation of a series; None when it is too short or constant."""
    if len(values) < 3:
        return None
    centred = values - values.mean()
    power = float(centred @ centred)
    return float(centred[:-1] @ centred[1:]) / power if power > 0 else None


@lru_cache(maxsize=4096)
def early_stopping(n: int, percent: float, certainty: float = CERTAINTY) -> int | None:
    """The largest t >= 1 with binom.cdf(t, n, 1 - p) < 1 - certainty (MLPerf's early stopping); None: n too small.

    The percentile is then at most sorted[n - t] (0-based) with that certainty.
    """
    from scipy.special import bdtr

    over = (_WHOLE - _thousandths(percent)) / _WHOLE
    t = _first(n + 1, lambda k: bdtr(k, n, over) >= 1 - certainty) - 1
    return t if t >= 1 else None


def early_stopping_estimate(ordered: npt.NDArray[Any], percent: float, higher: bool = False) -> float | None:
    """What the percentile certainly does not exceed; `higher`: what (100 - percent) % certainly does not undercut."""
    t = early_stopping(len(ordered), percent)
    if t is None:
        return None
    return float(ordered[t - 1] if higher else ordered[len(ordered) - t])


@lru_cache(maxsize=256)
def samples_needed(percent: float, over: int = 1, certainty: float = CERTAINTY) -> int:
    """The smallest n that certifies a percentile; `over=0`: that certifies a limit which no sample exceeds."""
    from scipy.special import bdtr

    share = (_WHOLE - _thousandths(percent)) / _WHOLE
    high = 2
    while bdtr(over, high, share) >= 1 - certainty:
        high *= 2
    return _first(high, lambda n: n > over and bdtr(over, n, share) < 1 - certainty)


def certified(n: int, percents: Iterable[float] = PERCENTS) -> list[str]:
    """Labels of the percentiles that n samples certify."""
    return [label(percent) for percent in percents if early_stopping(n, percent) is not None]


def cluster_bootstrap(
    values: Floats, ordered: Floats, clusters: npt.NDArray[Any], percents: Sequence[float] = PERCENTS, seed: int = 0
) -> dict[str, list[float | None]]:
    """95 % intervals of pooled percentiles; whole requests (clusters) are drawn anew, not their gaps.

    `ordered` is `values` sorted; `clusters` numbers the request of each value, ascending. Exact up to a grid: each
    percentile may only fall on one of 41 order statistics within five standard errors of it, so a resample is one row
    of a matrix product. The cost is capped: above 10,000 requests neighbours are drawn together, and above 4 million
    gaps the spread is that of an even part of the requests, which is wider than need be.
    """
    if not len(values) or clusters[0] == clusters[-1]:
        return {}
    middles = {percent: percentile(ordered, percent) or 0.0 for percent in percents}
    if len(values) > _MAX_VALUES:
        # Blocks of neighbouring requests, spread evenly over the run.
        part = (clusters.astype(np.int64) // 16) % (len(values) // _MAX_VALUES + 1) == 0
        values, clusters = values[part], clusters[part]
        ordered = np.sort(values)
    clusters = np.cumsum(np.concatenate(([0], clusters[1:] != clusters[:-1])))
    n = int(clusters[-1]) + 1
    if n > _MAX_CLUSTERS:
        clusters, n = clusters * _MAX_CLUSTERS // n, _MAX_CLUSTERS
    edges, places = _grid(values, ordered, clusters, n, percents)
    cells = clusters * (len(edges) + 1) + np.searchsorted(edges, values, side="left")
    table = np.bincount(cells, minlength=n * (len(edges) + 1)).reshape(n, len(edges) + 1)
    drawn = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), RESAMPLES)
    below = np.cumsum(drawn.astype(np.float64) @ table.astype(np.float64), axis=1)
    shares = below[:, :-1] / np.maximum(below[:, -1:], 1)
    result: dict[str, list[float | None]] = {}
    for percent, place in zip(percents, places, strict=True):
        reached = shares[:, place] >= _thousandths(percent) / _WHOLE - 1e-12
        # A resample whose percentile lies beyond the grid is given the grid's end.
        first = np.where(reached.any(axis=1), reached.argmax(axis=1), reached.shape[1] - 1)
        found = np.sort(edges[place][first])
        shift = middles[percent] - (percentile(ordered, percent) or 0.0)
        result[label(percent)] = [float(found[rank(each, RESAMPLES) - 1]) + shift for each in (2.5, 97.5)]
    return result


def _grid(
    values: Floats, ordered: Floats, clusters: npt.NDArray[Any], n_clusters: int, percents: Sequence[float]
) -> tuple[Floats, list[npt.NDArray[np.int64]]]:
    """Candidate values of all percentiles, sorted, and for each percentile the places of its own in that list."""
    n = len(values)
    sizes = np.bincount(clusters, minlength=n_clusters)
    middles = np.array([rank(percent, n) for percent in percents])
    cells = clusters * (len(percents) + 1) + np.searchsorted(ordered[middles - 1], values, side="left")
    table = np.bincount(cells, minlength=n_clusters * (len(percents) + 1)).reshape(n_clusters, -1)
    below = np.cumsum(table, axis=1)
    candidates = []
    for i, percent in enumerate(percents):
        # Standard error of the number below the percentile, requests being the units (ratio estimator).
        error = float(np.sqrt(np.sum((below[:, i] - _thousandths(percent) / _WHOLE * sizes) ** 2)))
        ranks = np.round(middles[i] + np.linspace(-5, 5, _EDGES) * max(error, 1))
        candidates.append(np.unique(ordered[np.clip(ranks, 1, n).astype(np.int64) - 1]))
    edges = np.unique(np.concatenate(candidates))
    return edges, [np.searchsorted(edges, own) for own in candidates]


@dataclass(frozen=True, slots=True)
class Trend:
    """`z` of a Mann-Kendall test over block medians, and the medians of the first and the last third of the blocks."""

    z: float
    early: float
    late: float


def trend(values: npt.NDArray[Any], blocks: int = 12) -> Trend | None:
    """Whether a series in time rises or falls. Block medians make it deaf to outliers; +inf is allowed.

    None for fewer than three values a block.
    """
    if len(values) < 3 * blocks:
        return None
    medians = np.array([percentile(np.sort(part), 50) for part in np.array_split(values, blocks)])
    higher = sum(int(np.sum(medians[i + 1 :] > medians[i])) for i in range(blocks))
    lower = sum(int(np.sum(medians[i + 1 :] < medians[i])) for i in range(blocks))
    score = higher - lower
    spread = (blocks * (blocks - 1) * (2 * blocks + 5) / 18) ** 0.5
    third = blocks // 3
    early, late = np.sort(medians[:third]), np.sort(medians[-third:])
    z = (score - (score > 0) + (score < 0)) / spread
    return Trend(z, percentile(early, 50) or 0.0, percentile(late, 50) or 0.0)


def _first(end: int, holds: Any) -> int:
    """The first k in [0, end) for which a monotonic condition holds; end if none."""
    low, high = 0, end
    while low < high:
        middle = (low + high) // 2
        if holds(middle):
            high = middle
        else:
            low = middle + 1
    return low
