"""Renewal processes at a rate of 1: endless arrival times whose gaps are independent and have a mean of 1.

A rate, constant or changing, is laid over them by time (rates.py). Every one is stationary: the run begins at a random
moment of it and not at an arrival, so that the mean rate holds from the start; only `constant` begins with an arrival.
The first gap is therefore what is left of a gap that somebody drops into: a uniform share of a gap that is drawn with a
chance proportional to its length.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import cache
from itertools import count
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from servemark.harness.plan.draws import uniform, uniforms
from servemark.harness.registry import Registry

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

LEAST_CV, MOST_CV = 0.05, 10.0
Cv = Annotated[float, Field(ge=LEAST_CV, le=MOST_CV)]
"""Coefficient of variation of the gaps: standard deviation / mean. 1 is Poisson's, above it arrivals come in clumps."""

Law = Literal["constant", "poisson", "gamma", "weibull"]
Times = Callable[[int, float], Iterator[float]]
"""(seed, cv) -> ascending times, one a unit of time in the mean."""

LAWS: Registry[Times] = Registry("law of gaps")

_BLOCK = 1024
"""Gaps that are drawn at once: one by one the inverse of a law would cost more than the request."""
_GAPS, _FIRST = b"arrivals.gaps", b"arrivals.first"


@LAWS.register("constant")
def constant(seed: int, cv: float = 0.0) -> Iterator[float]:
    return map(float, count())


@LAWS.register("poisson")
def poisson(seed: int, cv: float = 1.0) -> Iterator[float]:
    """Gaps are exponential; what is left of one is exponential too."""
    at = 0.0
    for index in count():
        at -= math.log(uniform(seed, b"arrivals", index))
        yield at


@LAWS.register("gamma")
def gamma(seed: int, cv: float) -> Iterator[float]:
    """Shape 1 / cv^2. Weighted by its length a gap is gamma too, with a shape that is 1 more."""
    from scipy.special import gammaincinv

    shape = cv**-2
    weighted = float(gammaincinv(shape + 1, uniform(seed, _FIRST, 1))) / shape
    return _renewal(seed, weighted, lambda u: gammaincinv(shape, u) / shape)


@LAWS.register("weibull")
def weibull(seed: int, cv: float) -> Iterator[float]:
    """(gap / scale)^shape is exponential; of a gap weighted by its length it is gamma of shape 1 + 1 / shape."""
    import numpy as np
    from scipy.special import gammaincinv

    shape = weibull_shape(cv)
    scale = 1 / math.gamma(1 + 1 / shape)
    weighted = scale * float(gammaincinv(1 + 1 / shape, uniform(seed, _FIRST, 1))) ** (1 / shape)
    return _renewal(seed, weighted, lambda u: scale * (-np.log(u)) ** (1 / shape))


def _renewal(seed: int, weighted: float, inverse: Callable[[Floats], Floats]) -> Iterator[float]:
    """The first arrival is a uniform share of a gap weighted by its length; `inverse` makes gaps of uniform numbers."""
    import numpy as np

    at = weighted * uniform(seed, _FIRST, 0)
    yield at
    for block in count():
        times = at + np.cumsum(inverse(uniforms(seed, _GAPS, block, _BLOCK)))
        yield from times.tolist()
        at = float(times[-1])


@cache
def weibull_shape(cv: float) -> float:
    """The shape whose gaps have this cv: cv^2 + 1 = gamma(1 + 2/k) / gamma(1 + 1/k)^2, which falls as k grows."""
    wanted, low, high = math.log1p(cv * cv), 0.1, 100.0
    for _ in range(100):
        middle = math.sqrt(low * high)
        if math.lgamma(1 + 2 / middle) - 2 * math.lgamma(1 + 1 / middle) > wanted:
            low = middle
        else:
            high = middle
    return math.sqrt(low * high)
