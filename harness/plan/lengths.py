"""Length distributions in tokens. A draw is the inverse distribution at a uniform number, so it has no state.

A new one is a decorated class with a `distribution` literal and `draw(u)`.
"""

from __future__ import annotations

import math
import re
from statistics import NormalDist
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from servemark.harness.plan.strict import Count, Registered, Strict
from servemark.harness.registry import Registry

_STANDARD = NormalDist()
_Z95 = _STANDARD.inv_cdf(0.95)


class Lengths(Strict):
    """A distribution of token counts, all of them at least 1."""

    distribution: str

    def draw(self, u: float) -> int:
        """The length at quantile `u`, 0 < u < 1."""
        raise NotImplementedError

    @property
    def least(self) -> int:
        """No draw is below it."""
        return 1

    @property
    def most(self) -> int | None:
        """No draw is above it; None: no limit."""
        return None


LENGTHS: Registry[type[Lengths]] = Registry("length distribution")


class _Clipped(Lengths):
    """Draws outside [min, max] become the nearer limit."""

    min: Count = Field(default=1, description="shorter draws become this")
    max: Count | None = Field(default=None, description="longer draws become this; without it there is no limit")

    @model_validator(mode="after")
    def _ordered(self) -> _Clipped:
        if self.max is not None and self.max < self.min:
            raise ValueError(f"max {self.max} is below min {self.min}; swap them")
        return self

    def _clip(self, length: float) -> int:
        rounded = max(self.min, round(length))
        return rounded if self.max is None else min(self.max, rounded)

    @property
    def least(self) -> int:
        return self.min

    @property
    def most(self) -> int | None:
        return self.max


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
class Normal(_Clipped):
    """Normal, rounded to whole tokens and clipped; clipping moves the mean."""

    distribution: Literal["normal"] = "normal"
    mean: Annotated[float, Field(gt=0)] = Field(description="mean before clipping")
    std: Annotated[float, Field(ge=0)] = Field(description="standard deviation before clipping")

    def draw(self, u: float) -> int:
        return self._clip(self.mean + self.std * _STANDARD.inv_cdf(u))


@LENGTHS.register("lognormal")
class LogNormal(_Clipped):
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
        return self._clip(self.median * math.exp(self.spread * _STANDARD.inv_cdf(u)))


_CALL = re.compile(r"^\s*(\w+)\s*\(([^()]*)\)\s*$")


def _number(text: str) -> float | int:
    return int(text) if re.fullmatch(r"\d+", text) else float(text)


def _from_text(text: str) -> dict[str, Any]:
    """`uniform(100, 200)` or `lognormal(median=1000, p95=3000)` as a mapping. Raises ValueError."""
    if re.fullmatch(r"\s*\d+\s*", text):
        return {"distribution": "fixed", "tokens": int(text)}
    match = _CALL.match(text)
    if match is None:
        raise ValueError(f"{text!r} is no length; write a number such as 500, or uniform(100, 200)")
    name = match[1].lower()
    if name not in LENGTHS:
        raise ValueError(f"there is no length distribution {name!r}; there are: {', '.join(LENGTHS)}")
    order = [key for key, field in LENGTHS[name].model_fields.items() if field.is_required()]
    values: dict[str, Any] = {"distribution": name}
    for position, part in enumerate(filter(None, (part.strip() for part in match[2].split(",")))):
        key, equals, number = part.rpartition("=")
        if not equals and position >= len(order):
            raise ValueError(f"{name} takes {', '.join(order)} by position; name the others, as in min=1")
        try:
            values[key.strip() if equals else order[position]] = _number(number.strip())
        except ValueError:
            raise ValueError(f"{number.strip()!r} in {text!r} is no number") from None
    return values


def _spell_out(value: Any) -> Any:
    """The shorthands as the mapping that they stand for."""
    if isinstance(value, bool | float | None):
        raise ValueError(f"{value!r} is no length; write a whole number such as 500, or uniform(100, 200)")
    if isinstance(value, int):
        return {"distribution": "fixed", "tokens": value}
    return _from_text(value) if isinstance(value, str) else value


LengthsField = Annotated[
    Lengths,
    Registered(
        LENGTHS,
        "distribution",
        _spell_out,
        ({"type": "integer", "minimum": 1}, {"type": "string", "pattern": r"^\s*(\d+|\w+\s*\(.*\))\s*$"}),
    ),
]
"""A field that holds any registered distribution, or a shorthand for one: `500`, `uniform(100, 200)`."""
