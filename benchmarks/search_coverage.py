"""How often is an interval of `bench search` wrong? The simulated engine in virtual time, four minutes on a core.

For each load many runs are made, whose mean is the truth; three at a time they are pooled as the search pools them. An
interval at 95 % may lie wholly above the truth in 2.5 % of cases, and wholly below it in 2.5 %. Beside it the same with
requests taken as independent.
"""

from __future__ import annotations

import numpy as np
from search import CASES, DURATION_S, Case, Draws, ttfts_ms

from servemark.harness.search.points import Claim, Outcome, Series, pooled
from servemark.harness.search.proportion import interval, stretches
from servemark.harness.search.strain import clumping

RATES = {"random": (8.0, 10.0, 12.0, 13.5, 15.0), "even": (13.5, 14.0, 14.5)}
RUNS, POOLED = 600, 3


def outcome(case: Case, ttfts: list[float]) -> Outcome:
    used_up = np.array(ttfts) / case.ttft_ms
    return Outcome(1.0, Series(tuple(stretches((used_up <= 1).astype(int).tolist())), clumping(used_up)))


def wrong(ends: list[tuple[float, float]], truth: float) -> str:
    above, below = (np.mean([test(each) for each in ends]) for test in (lambda e: e[0] > truth, lambda e: e[1] < truth))
    return f"{above:6.1%} {below:6.1%}"


def coverage(case: Case, rates: tuple[float, ...]) -> None:
    draws = [Draws.of(case, seed) for seed in range(RUNS)]
    for rate in rates:
        runs = [outcome(case, ttfts_ms(case, rate, each)) for each in draws]
        shares = [pooled(1.0, runs[i : i + POOLED], Claim(0.9)).share for i in range(0, RUNS, POOLED)]
        truth = sum(each.good for each in shares) / sum(each.requests for each in shares)
        ours = wrong([(each.low, each.high) for each in shares], truth)
        plain = wrong([interval(each.good, each.requests) for each in shares], truth)
        requests, worth = (np.median([getattr(each, name) for each in shares]) for name in ("requests", "effective"))
        print(f"{rate:5g} {truth:8.2%} {requests:9.0f} {worth:6.0f}    {ours}   {plain}", flush=True)


def main() -> None:
    print(f"{RUNS // POOLED} samples of {POOLED} runs of {DURATION_S:g} s each; wrong: above and below the truth")
    print("req/s    truth  requests  worth    as the search   independent")
    for name, rates in RATES.items():
        print(f"{name} arrivals")
        coverage(CASES[name], rates)


if __name__ == "__main__":
    main()
