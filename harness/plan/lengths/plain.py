"""Fixed, uniform and normal lengths."""

from __future__ import annotations

from statistics import NormalDist
from typing import Annotated, Literal

from pydantic import Field, model_validator

from servemark.harness.plan.lengths.base import LENGTHS, Clipped, Lengths
from servemark.harness.plan.strict import Count

_STANDARD = NormalDist()


@LENGTHS.register("fixed")
class Fixed(Lengths):
    """Always the same; a bare integer means this."""

    distribution: Literal["fixed"] = "fixed"
    tokens: Count = Field(description="the length")

    def draw(self, u: float) -> int:
        return self.tokens

    @property
    def least(self) -> int:
        return self.tokens

    @property
    def most(self) -> int | None:
        return self.tokens


@LENGTHS.register("uniform")
class Uniform(Lengths):
    """Every whole number from min to max, both included, equally often."""

    distribution: Literal["uniform"] = "uniform"
    min: Count = Field(description="the shortest")
    max: Count = Field(description="the longest")

    @model_validator(mode="after")
    def _ordered(self) -> Uniform:
        if self.max < self.min:
            raise ValueError(f"max {self.max} is below min {self.min}; swap them")
        return self

    def draw(self, u: float) -> int:
        return self.min + int(u * (self.max - self.min + 1))

    @property
    def least(self) -> int:
        return self.min

    @property
    def most(self) -> int | None:
        return self.max


@LENGTHS.register("normal")
class Normal(Clipped):
    """Normal, rounded to whole tokens and clipped; clipping moves the mean."""

    distribution: Literal["normal"] = "normal"
    mean: Annotated[float, Field(gt=0)] = Field(description="mean before clipping")
    std: Annotated[float, Field(ge=0)] = Field(description="standard deviation before clipping")

    def draw(self, u: float) -> int:
        return self._clip(self.mean + self.std * _STANDARD.inv_cdf(u))
