"""What a sample says of a share: how many requests a claim takes, how many independent ones they are worth, and the
interval.

Clopper and Pearson, Biometrika 26 (1934), on the effective sample size, as Korn and Graubard do for surveys (Survey
Methodology 24, 1998). The variance inflation is Geyer's initial monotone sequence (Statistical Science 7, 1992).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import chain, groupby, repeat

CERTAINTY = 0.99
"""So sure is a sample of the needed size, none of whose requests misses."""
CONFIDENCE = 0.95


def needed(attainment: float, certainty: float = CERTAINTY) -> int:
    """The smallest n with attainment^n <= 1 - certainty: n requests without a miss then prove the share."""
    return max(1, math.ceil(math.log(1 - certainty) / math.log(attainment) - 1e-9))


def interval(good: float, n: float, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Clopper-Pearson of `good` in `n`, which may be fractions; (0, 1) of none."""
    from scipy.special import betaincinv

    if n <= 0:
        return 0.0, 1.0
    tail = (1 - confidence) / 2
    low = float(betaincinv(good, n - good + 1, tail)) if good > 0 else 0.0
    high = float(betaincinv(good + 1, n - good, 1 - tail)) if good < n else 1.0
    return low, high


def inflation(runs: Sequence[Sequence[int]]) -> float:
    """How many times the variance of the pooled share is that of independent requests; at least 1.

    `runs` are 1 and 0 in order of intended time. Deviations are from the share of all runs together, so that runs
    which disagree count as correlated. It cannot be seen where all are alike, and 1 is taken.
    """
    import numpy as np

    series = [np.asarray(run, dtype=np.float64) for run in runs if len(run)]
    total = sum(map(len, series))
    share = sum(float(run.sum()) for run in series) / total if total else 0.0
    power = total * share * (1 - share)
    if total < 4 or power <= 0:
        return 1.0
    covariance = np.zeros(max(map(len, series)))
    for run in series:
        spectrum = np.fft.rfft(run - share, 1 << (2 * len(run)).bit_length())
        covariance[: len(run)] += np.fft.irfft(np.abs(spectrum) ** 2)[: len(run)]
    pairs = (covariance[: len(covariance) // 2 * 2] / power).reshape(-1, 2).sum(axis=1)
    ends = np.flatnonzero(pairs <= 0)
    positive = pairs[: ends[0]] if len(ends) else pairs
    return min(float(total), max(1.0, 2 * float(np.minimum.accumulate(positive).sum()) - 1))


def spelled_out(lengths: Sequence[int]) -> list[int]:
    """[2, 1, 3] -> 1 1 0 1 1 1: lengths of stretches that are good and bad in turn, good ones first."""
    return list(chain.from_iterable(repeat(1 - i % 2, length) for i, length in enumerate(lengths)))


def stretches(series: Sequence[int]) -> list[int]:
    """The reverse of `spelled_out`."""
    found = [(value, len(list(group))) for value, group in groupby(series)]
    lead = [0] if found and not found[0][0] else []
    return lead + [length for _, length in found]
