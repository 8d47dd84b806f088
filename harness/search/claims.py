"""From an SLO to what a search has to prove, and how many requests that takes."""

from __future__ import annotations

import math
from collections.abc import Mapping

from servemark.harness.errors import BadInput
from servemark.harness.figures.objectives import DEFAULT_ATTAINMENT
from servemark.harness.figures.slo import Slo
from servemark.harness.figures.stats import samples_needed
from servemark.harness.search.points import Claim
from servemark.harness.search.proportion import needed

LEAST_REQUESTS = 64
"""Where only limits on a run are to be held."""


def claim_of(slo: Slo, runs: int) -> Claim:
    """The shares that `weigh` judges. BadInput where one is all requests."""
    classes = {
        name: DEFAULT_ATTAINMENT if own.attainment is None else own.attainment
        for name, own in slo.classes.items()
        if own.per_request
    }
    claim = Claim(_of_all(slo), runs, classes=classes)
    if any(attainment >= 1 for attainment in (claim.attainment or 0, *classes.values())):
        raise BadInput("no sample proves that all requests meet the SLO; give an attainment below 1, as 0.999")
    return claim


def _of_all(slo: Slo) -> float | None:
    """None where no limit on requests holds, or where only the classes of a mix say what they need."""
    if not any(limit.per_request for limit in slo.every_limit):
        return None
    if slo.attainment is None and any(own.attainment is not None for own in slo.classes.values()):
        return None
    return DEFAULT_ATTAINMENT if slo.attainment is None else slo.attainment


def requests_for(claim: Claim, slo: Slo, shares: Mapping[str, float]) -> int:
    """As many as each share takes where none of them misses, and as the limits on a run take.

    `shares` says what part of all requests a class of a mix is.
    """
    counts = [] if claim.attainment is None else [float(needed(claim.attainment))]
    counts += [needed(attainment) / shares[name] for name, attainment in claim.classes.items()]
    return max(math.ceil(max(counts, default=LEAST_REQUESTS)), certified_by(slo, shares))


def certified_by(slo: Slo, shares: Mapping[str, float]) -> int:
    """So many requests do the percentiles among the limits take."""
    counts = [_certified(slo)] + [_certified(own) / shares[name] for name, own in slo.classes.items()]
    return math.ceil(max(counts))


def _certified(slo: Slo) -> int:
    return max((samples_needed(limit.percent) for limit in slo.limits if limit.percent is not None), default=0)
