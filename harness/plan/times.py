"""Distributions of times: think times, patience. A draw is the inverse distribution at a uniform number.

A new one is a decorated class with a `distribution` literal and `draw_ns(u)`. In a file it is a mapping, or short:
`5s` is fixed, and `exponential(5s)`, `uniform(1s, 5s)`, `lognormal(4s, p95=20s)` name their keys in order.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import Field, model_serializer, model_validator

from servemark.harness.plan import lognormal
from servemark.harness.plan.calls import called, filled
from servemark.harness.plan.strict import Duration, PositiveDuration, Registered, Strict
from servemark.harness.registry import Registry
from servemark.harness.units import DURATION_PATTERN, format_duration

_LONGEST_NS = 10_000 * 3600 * 10**9


class Times(Strict):
    """A distribution of times, none of them below 0."""

    distribution: str

    def draw_ns(self, u: float) -> int:
        """The time at quantile `u`, 0 < u < 1, in ns."""
        raise NotImplementedError

    @property
    def never(self) -> bool:
        """It is always 0."""
        return False


TIMES: Registry[type[Times]] = Registry("distribution of times")


@TIMES.register("fixed")
class Fixed(Times):
    """Always the same; a bare duration means this."""

    distribution: Literal["fixed"] = "fixed"
    time: Duration = Field(description="the time")

    @model_serializer
    def _plain(self) -> str:
        return format_duration(self.time)

    def draw_ns(self, u: float) -> int:
        return self.time

    @property
    def never(self) -> bool:
        return self.time == 0


@TIMES.register("uniform")
class Uniform(Times):
    """Any time from min to max, all equally likely."""

    distribution: Literal["uniform"] = "uniform"
    min: Duration = Field(description="the shortest")
    max: PositiveDuration = Field(description="the longest")

    @model_validator(mode="after")
    def _ordered(self) -> Uniform:
        _check_order(self.min, self.max)
        return self

    def draw_ns(self, u: float) -> int:
        return self.min + round(u * (self.max - self.min))


class _Clipped(Times):
    """Draws outside [min, max] become the nearer limit, which moves the mean."""

    min: Duration = Field(default=0, description="shorter draws become this")
    max: PositiveDuration | None = Field(default=None, description="longer draws become this; null: no limit")

    @model_validator(mode="after")
    def _ordered(self) -> _Clipped:
        _check_order(self.min, self.max)
        return self

    def _clip(self, time_ns: float) -> int:
        most = _LONGEST_NS if self.max is None else self.max
        return max(self.min, round(min(time_ns, most)))


@TIMES.register("exponential")
class Exponential(_Clipped):
    """Exponential: many short ones, few long ones."""

    distribution: Literal["exponential"] = "exponential"
    mean: PositiveDuration = Field(description="mean before clipping")

    def draw_ns(self, u: float) -> int:
        return self._clip(-self.mean * math.log(1 - u) if u < 1 else math.inf)


@TIMES.register("lognormal")
class LogNormal(_Clipped):
    """Lognormal from its median and one figure of its spread: p95, mean, or sigma of the natural logarithm."""

    distribution: Literal["lognormal"] = "lognormal"
    median: PositiveDuration = Field(description="half of the draws are below it")
    p95: PositiveDuration | None = Field(default=None, description="95 % of the draws are below it")
    mean: PositiveDuration | None = Field(default=None, description="mean before clipping")
    sigma: Annotated[float, Field(ge=0, le=10)] | None = Field(
        default=None, description="standard deviation of the natural logarithm"
    )

    @model_validator(mode="after")
    def _one_spread(self) -> LogNormal:
        lognormal.check_spread(self)
        return self

    def draw_ns(self, u: float) -> int:
        return self._clip(lognormal.quantile(self, u))


def _check_order(least: int, most: int | None) -> None:
    if most is not None and most < least:
        raise ValueError("max is below min; swap them")


def _spell_out(value: Any) -> Any:
    """The shorthands as the mapping that they stand for. Raises ValueError."""
    if isinstance(value, dict | Times):
        return value
    call = called(value) if isinstance(value, str) else None
    return {"distribution": "fixed", "time": value} if call is None else _from_call(call[0].lower(), call[1])


def _from_call(name: str, parts: list[str]) -> dict[str, Any]:
    if name not in TIMES:
        raise ValueError(f"there is no distribution of times {name!r}; there are: {', '.join(TIMES)}")
    order = [key for key, field in TIMES[name].model_fields.items() if field.is_required()]
    too_many = f"{name} takes {', '.join(order)} by position; name the others, as in max=60s"
    values = filled(parts, order, lambda key, text: _sigma(text) if key == "sigma" else text, lambda: too_many)
    return {"distribution": name, **values}


def _sigma(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{text.strip()!r} is no number for sigma") from None


TimesField = Annotated[
    Times,
    Registered(
        TIMES,
        "distribution",
        _spell_out,
        (
            {"type": "string", "pattern": DURATION_PATTERN, "examples": ["5s", "200ms"]},
            {"type": "string", "pattern": r"^\s*\w+\s*\(.*\)\s*$"},
        ),
    ),
]
"""A field that holds any registered distribution, or a shorthand for one: `5s`, `exponential(5s)`."""
