"""Arrivals whose rate changes by plan: stages and ramps, bursts, the course of a day."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import chain, repeat
from typing import Annotated, Any, Literal

from pydantic import Field, PlainSerializer, PlainValidator, WithJsonSchema, model_validator

from servemark.harness.plan.arrivals.base import ARRIVALS, SECOND, OpenLoop, Timeline
from servemark.harness.plan.arrivals.gaps import LAWS, Cv, Law
from servemark.harness.plan.arrivals.rates import Piece, rescaled
from servemark.harness.plan.draws import uniform
from servemark.harness.plan.strict import Duration, PositiveDuration, Rate, Strict
from servemark.harness.units import format_rate, parse_rate

HOUR = 3600 * SECOND


def _parse_level(value: object) -> float:
    if not isinstance(value, bool) and str(value).strip().removesuffix("/s") in ("0", "0.0"):
        return 0.0
    rate = parse_rate(value)
    if math.isinf(rate):
        raise ValueError("a rate that changes has to be finite here; write requests per second, such as 8 or 0.5")
    return rate


Level = Annotated[
    float,
    PlainValidator(_parse_level),
    PlainSerializer(format_rate),
    WithJsonSchema({"anyOf": [{"type": "number", "minimum": 0}, {"type": "string", "pattern": r"^\d+(\.\d*)?(/s)?$"}]}),
]
"""Requests per second for a while; 0 is a pause."""


class _Varying(OpenLoop):
    """What all of them share: the law between arrivals, and one factor on all rates."""

    rate: Rate | None = Field(
        default=None, description="scale all rates so that this is their mean, requests per second"
    )
    process: Law = Field(
        default="poisson", description="law between arrivals: poisson, constant, or gamma or weibull with a cv"
    )
    cv: Cv | None = Field(default=None, description="of gamma and weibull: standard deviation of the gaps / their mean")

    @model_validator(mode="after")
    def _sound(self) -> _Varying:
        self.check()
        if self.cv is None and self.process in ("gamma", "weibull"):
            raise ValueError(f"process: {self.process} needs a cv beside it, as cv: 2")
        if self.cv is not None and self.process not in ("gamma", "weibull"):
            raise ValueError(f"cv goes with process: gamma or weibull, and here is process: {self.process}")
        if self.rate is not None and math.isinf(self.rate):
            raise ValueError(f"an infinite rate leaves nothing of {self.arrivals}; take arrivals: poisson with it")
        if self.own_mean_rate <= 0:
            raise ValueError("all rates are 0, so nothing would be sent; give one above 0")
        return self

    def check(self) -> None:
        """Raises ValueError where the keys of its own do not go together."""

    @property
    def own_mean_rate(self) -> float:
        """As the rates are written."""
        raise NotImplementedError

    @property
    def own_peak_rate(self) -> float:
        raise NotImplementedError

    def pieces(self, seed: int) -> Iterator[Piece]:
        """The rates as they are written, one after another."""
        raise NotImplementedError

    @property
    def scale(self) -> float:
        return 1.0 if self.rate is None else self.rate / self.own_mean_rate

    @property
    def mean_rate(self) -> float:
        return self.own_mean_rate * self.scale

    @property
    def peak_rate(self) -> float:
        return self.own_peak_rate * self.scale

    @property
    def varies(self) -> bool:
        return True

    def offsets_ns(self, seed: int, timeline: Timeline | None = None) -> Iterator[int]:
        scale = self.scale
        return rescaled(LAWS[self.process](seed, self.cv or 1.0), (each.scaled(scale) for each in self.pieces(seed)))


class Stage(Strict):
    """A while at one rate, or on the way from one to another."""

    rate: Level = Field(description="requests per second, at the stage's begin where it has a `to`; 0 is a pause")
    to: Level | None = Field(default=None, description="the rate at its end, which is reached in a straight line")
    duration: PositiveDuration = Field(description="how long it takes")

    @property
    def piece(self) -> Piece:
        return Piece(self.duration, self.rate, self.rate if self.to is None else self.to)


@ARRIVALS.register("stages")
class Stages(_Varying):
    """Steps and ramps, one after another from the start of the run; the run ends with the last one."""

    arrivals: Literal["stages"] = "stages"
    stages: Annotated[tuple[Stage, ...], Field(min_length=1, strict=False)] = Field(
        description="each a `rate`, maybe a rate `to` which it ramps, and a `duration`"
    )

    @property
    def lasts_ns(self) -> int:
        return sum(stage.duration for stage in self.stages)

    @property
    def own_mean_rate(self) -> float:
        return sum(stage.piece.area for stage in self.stages) * SECOND / self.lasts_ns

    @property
    def own_peak_rate(self) -> float:
        return max(max(stage.piece.first, stage.piece.last) for stage in self.stages)

    def pieces(self, seed: int) -> Iterator[Piece]:
        return (stage.piece for stage in self.stages)

    def course(self) -> tuple[dict[str, Any], ...]:
        found, began_ns = [], 0
        for stage in self.stages:
            piece, ended_ns = stage.piece.scaled(self.scale), began_ns + stage.duration
            times = {"start_s": began_ns / SECOND, "end_s": ended_ns / SECOND}
            found.append({**times, "rate_start": piece.first, "rate_end": piece.last, "expected": piece.area})
            began_ns = ended_ns
        return tuple(found)


@ARRIVALS.register("bursts")
class Bursts(_Varying):
    """Busy and quiet times in turn, a busy one first."""

    arrivals: Literal["bursts"] = "bursts"
    on: PositiveDuration = Field(description="how long a busy time takes, or its mean")
    off: PositiveDuration = Field(description="how long a quiet time takes, or its mean")
    on_rate: Level | None = Field(
        default=None, description="requests per second in a busy time; without it `rate`, the mean over both, says it"
    )
    off_rate: Level = Field(default=0.0, description="requests per second in a quiet time")
    lengths: Literal["fixed", "exponential"] = Field(
        default="fixed", description="of the times: always the same, or drawn anew each time"
    )

    def check(self) -> None:
        if self.on_rate is None and self.rate is None:
            raise ValueError("bursts need a rate: give on_rate, that of a busy time, or rate, the mean over both")
        if self.on_rate is None and self.off_rate:
            raise ValueError("an off_rate needs the on_rate beside it; `rate` then scales both")
        if min(self.on, self.off) < SECOND // 1000:
            raise ValueError("busy and quiet times take 1ms or more; for shorter ones take a gamma process with a cv")

    @property
    def busy(self) -> float:
        """The rate in a busy time before it is scaled; any will do where only the mean is given."""
        return 1.0 if self.on_rate is None else self.on_rate

    @property
    def own_mean_rate(self) -> float:
        return (self.busy * self.on + self.off_rate * self.off) / (self.on + self.off)

    @property
    def own_peak_rate(self) -> float:
        return max(self.busy, self.off_rate)

    def pieces(self, seed: int) -> Iterator[Piece]:
        phases = ((self.on, self.busy), (self.off, self.off_rate))
        for index, (length_ns, rate) in enumerate(chain.from_iterable(repeat(phases))):
            if self.lengths == "exponential":
                length_ns = max(1, round(-length_ns * math.log(uniform(seed, b"arrivals.phases", index))))
            yield Piece(length_ns, rate, rate)


_MINUTES = 24 * 60


@ARRIVALS.register("daily")
class Daily(_Varying):
    """The course of a day, over and over: a smooth curve between a trough and a peak, or 24 hourly rates."""

    arrivals: Literal["daily"] = "daily"
    peak: Level | None = Field(default=None, description="requests per second at the busiest time")
    trough: Level | None = Field(default=None, description="requests per second at the quietest, 12 hours from it")
    trough_at: Duration = Field(default=4 * HOUR, description="the time of day that is the quietest")
    rates: Annotated[tuple[Level, ...], Field(min_length=24, max_length=24, strict=False)] | None = Field(
        default=None, description="requests per second in each hour from midnight on, in place of peak and trough"
    )
    day: PositiveDuration = Field(default=24 * HOUR, description="how long a day takes: 10m plays one in ten minutes")
    start: Duration = Field(default=0, description="the time of day at which the run starts, 9h30m say, of 24 hours")

    def check(self) -> None:
        curve = (self.peak, self.trough)
        if (self.rates is None) == (curve == (None, None)) or (self.rates is None and None in curve):
            raise ValueError("a day takes its peak and its trough, or 24 rates; give one of the two")
        if self.peak is not None and self.trough is not None and self.trough > self.peak:
            raise ValueError(f"the trough {self.trough:g} is above the peak {self.peak:g}; swap them")
        for name in ("start", "trough_at"):
            if getattr(self, name) >= 24 * HOUR:
                raise ValueError(f"{name} is a time of day, below 24h, however long `day` takes")
        if self.day < SECOND:
            raise ValueError("a day takes 1s or more")

    @property
    def own_mean_rate(self) -> float:
        if self.rates is not None:
            return sum(self.rates) / 24
        return ((self.peak or 0.0) + (self.trough or 0.0)) / 2

    @property
    def own_peak_rate(self) -> float:
        return max(self.rates) if self.rates is not None else self.peak or 0.0

    def pieces(self, seed: int) -> Iterator[Piece]:
        """A minute of the day each, of which the first may be cut; a curve is a straight line in each of them."""
        minute, into_ns = divmod(self.start, 60 * SECOND)
        ends = [round(self.day * k / _MINUTES) for k in range(_MINUTES + 1)]
        skipped = into_ns / (60 * SECOND)
        while True:
            whole_ns = ends[minute + 1] - ends[minute]
            first, last = self._at(minute + skipped), self._at(minute + 1)
            if self.rates is not None:
                last = first
            duration_ns = round(whole_ns * (1 - skipped))
            if duration_ns:
                yield Piece(duration_ns, first, last)
            minute, skipped = (minute + 1) % _MINUTES, 0.0

    def _at(self, minute: float) -> float:
        """The rate at a minute of the day."""
        if self.rates is not None:
            return self.rates[int(minute // 60) % 24]
        peak, trough = self.peak or 0.0, self.trough or 0.0
        angle = 2 * math.pi * (minute - self.trough_at / (60 * SECOND)) / _MINUTES
        return (peak + trough) / 2 - (peak - trough) / 2 * math.cos(angle)
