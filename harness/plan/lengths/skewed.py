"""Lengths of which many are short and a few long: lognormal, exponential, geometric, Pareto.

A study of production traffic fits the lengths of prompts with a mixture of Pareto and lognormal, those of answers with
an exponential distribution (ServeGen, arXiv 2505.09999).
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field, model_validator

from servemark.harness.plan import lognormal
from servemark.harness.plan.lengths.base import LENGTHS, Clipped


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
        lognormal.check_spread(self)
        return self

    def draw(self, u: float) -> int:
        return self._clip(lognormal.quantile(self, u))


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
