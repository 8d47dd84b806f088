"""Lengths of which many are short and a few long: lognormal, exponential, geometric, Pareto.

A study of production traffic fits the lengths of prompts with a mixture of Pareto and lognormal, those of answers with
an exponential distribution (ServeGen, arXiv 2505.09999).
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Annotated, Literal

from pydantic import Field, model_validator

from servemark.harness.plan.lengths.base import LENGTHS, Clipped

_STANDARD = NormalDist()
_Z95 = _STANDARD.inv_cdf(0.95)


@LENGTHS.register("lognormal")
class LogNormal(Clipped):
    """Lognormal from its median and one figure of its spread: p95, mean, or sigma of the logarithm."""

    distribution: Literal["lognormal"] = "lognormal"
    median: Annotated[float, Field(gt=0)] = Field(description="half of the draws are below it")
    p95: Annotated[float, Field(gt=0)] | None = Field(default=None, description="95 % of the draws are below it")
    mean: Annotated[float, Field(gt=0)] | None = Field(default=None, description="mean before clipping")
    sigma: Annotated[float, Field(ge=0)] | None = Field(
        default=None, description="standard deviation of the natural logarithm"
    )

    @model_validator(mode="after")
    def _one_spread(self) -> LogNormal:
        given = [name for name in ("p95", "mean", "sigma") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"a lognormal takes its median and exactly one of p95, mean, sigma, and here are "
                f"{', '.join(given) or 'none'}; keep one"
            )
        for name in ("p95", "mean"):
            value = getattr(self, name)
            if value is not None and value < self.median:
                raise ValueError(f"{name} {value:g} is below the median {self.median:g}, which no lognormal has")
        return self

    @property
    def spread(self) -> float:
        """Sigma of the logarithm: given, ln(p95 / median) / z95, or sqrt(2 ln(mean / median))."""
        if self.p95 is not None:
            return math.log(self.p95 / self.median) / _Z95
        if self.mean is not None:
            return math.sqrt(2 * math.log(self.mean / self.median))
        return self.sigma or 0.0

    def draw(self, u: float) -> int:
        exponent = min(self.spread * _STANDARD.inv_cdf(u), 300.0)  # e^300 is beyond every length
        return self._clip(self.median * math.exp(exponent))


@LENGTHS.register("exponential")
class Exponential(Clipped):
    """Exponential, rounded to whole tokens and clipped."""

    distribution: Literal["exponential"] = "exponential"
    mean: Annotated[float, Field(gt=0)] = Field(description="mean before clipping")

    def draw(self, u: float) -> int:
        return self._clip(-self.mean * math.log1p(-u))


@LENGTHS.register("geometric")
class Geometric(Clipped):
    """From 1 on, each longer one rarer by the same factor: how long it takes until something happens."""

    distribution: Literal["geometric"] = "geometric"
    mean: Annotated[float, Field(ge=1)] = Field(description="mean before clipping; it happens with chance 1 / mean")

    def draw(self, u: float) -> int:
        if self.mean == 1:
            return self._clip(1)
        return self._clip(math.ceil(math.log1p(-u) / math.log1p(-1 / self.mean)))


@LENGTHS.register("pareto")
class Pareto(Clipped):
    """Pareto (type I): the share of draws above x is (shortest / x) ** shape."""

    distribution: Literal["pareto"] = "pareto"
    shortest: Annotated[float, Field(gt=0)] = Field(description="no draw is below it")
    shape: Annotated[float, Field(gt=0)] = Field(
        description="how fast longer ones get rarer; up to 1 the mean is infinite, so set a max"
    )

    def draw(self, u: float) -> int:
        exponent = min(-math.log1p(-u) / self.shape, 300.0)
        return self._clip(self.shortest * math.exp(exponent))
