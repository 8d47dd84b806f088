"""Arrivals at one rate: constant, Poisson, and renewal processes that are burstier or smoother than it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import repeat
from typing import Annotated, Literal

from pydantic import Field, model_validator

from servemark.harness.plan.arrivals.base import ARRIVALS, SECOND, OpenLoop, Timeline
from servemark.harness.plan.arrivals.gaps import LAWS, LEAST_CV, MOST_CV, Cv
from servemark.harness.plan.strict import Rate


class _Rated(OpenLoop):
    rate: Rate = Field(description="requests per second; inf intends all of them at once")

    @property
    def all_at_once(self) -> bool:
        return math.isinf(self.rate)

    @property
    def mean_rate(self) -> float:
        return self.rate

    @property
    def variation(self) -> float:
        """Of the gaps."""
        return 1.0

    def offsets_ns(self, seed: int, timeline: Timeline | None = None) -> Iterator[int]:
        if self.all_at_once:
            return repeat(0)
        return (round(at * SECOND / self.rate) for at in LAWS[self.arrivals](seed, self.variation))


@ARRIVALS.register("constant")
class Constant(_Rated):
    """Evenly spaced: request i is intended at i / rate."""

    arrivals: Literal["constant"] = "constant"


@ARRIVALS.register("poisson")
class Poisson(_Rated):
    """Independent users: gaps are exponential with mean 1 / rate."""

    arrivals: Literal["poisson"] = "poisson"


@ARRIVALS.register("gamma")
class Gamma(_Rated):
    """Gaps of a gamma distribution: the usual way to make traffic burstier, or smoother, than independent users."""

    arrivals: Literal["gamma"] = "gamma"
    cv: Cv | None = Field(
        default=None, description="standard deviation of the gaps / their mean: 1 is Poisson, more is burstier"
    )
    burstiness: Annotated[float, Field(ge=MOST_CV**-2, le=LEAST_CV**-2)] | None = Field(
        default=None, description="the same as 1 / cv^2, as in vLLM: 1 is Poisson, less is burstier"
    )

    @model_validator(mode="after")
    def _one_spread(self) -> Gamma:
        if (self.cv is None) == (self.burstiness is None):
            raise ValueError("a gamma process takes exactly one of cv and burstiness (1 / cv^2); give one")
        return self

    @property
    def variation(self) -> float:
        return self.cv if self.cv is not None else (self.burstiness or 1.0) ** -0.5


@ARRIVALS.register("weibull")
class Weibull(_Rated):
    """Gaps of a Weibull distribution: with the same cv its long gaps are longer than a gamma's, where cv is above 1."""

    arrivals: Literal["weibull"] = "weibull"
    cv: Cv = Field(description="standard deviation of the gaps / their mean: 1 is Poisson, more is burstier")

    @property
    def variation(self) -> float:
        return self.cv
