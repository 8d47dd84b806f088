"""When requests are sent: arrival processes, pure functions from a seed to absolute offsets, and the closed loop.

A new arrival process is a decorated class with an `arrivals` literal and `offsets_ns`. Nothing here sleeps or reads a
clock.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import count, repeat
from typing import Literal, Protocol

from pydantic import Field, model_validator

from servemark.harness.plan.draws import uniform
from servemark.harness.plan.strict import Count, Duration, Rate, Strict
from servemark.harness.registry import Registry

SECOND = 1_000_000_000


class Timeline(Protocol):
    """Recorded arrivals: `size` of them, at ascending offsets in ns."""

    @property
    def size(self) -> int | None: ...

    def offset_ns(self, index: int) -> int: ...


class Load(Strict):
    """When requests are sent."""

    arrivals: str

    @property
    def all_at_once(self) -> bool:
        """Every request is intended at offset 0."""
        return False


ARRIVALS: Registry[type[Load]] = Registry("arrival process")


@ARRIVALS.register("closed")
class ClosedLoop(Load):
    """So many users, each of whom sends the next request when the last one is answered."""

    arrivals: Literal["closed"] = Field(default="closed", description="may be left out beside `concurrency`")
    concurrency: Count = Field(description="requests in flight")
    think_time: Duration = Field(default=0, description="pause of each user between an answer and the next request")
    requests_per_minute: Count | None = Field(
        default=None, description="at most so many, evenly spread, as hosted endpoints allow; null: no cap"
    )


class OpenLoop(Load):
    """Load that arrives whether or not earlier requests have finished."""

    max_concurrency: Count | None = Field(
        default=None, description="at most so many in flight; waiting for a slot counts from the intended time"
    )

    def offsets_ns(self, seed: int, timeline: Timeline | None = None) -> Iterator[int]:
        """Ascending offsets from the start of the run; endless unless the timeline ends."""
        raise NotImplementedError


class _Rated(OpenLoop):
    rate: Rate = Field(description="requests per second; inf intends all of them at once")

    @property
    def all_at_once(self) -> bool:
        return math.isinf(self.rate)


@ARRIVALS.register("constant")
class Constant(_Rated):
    """Evenly spaced: request i is intended at i / rate."""

    arrivals: Literal["constant"] = "constant"

    def offsets_ns(self, seed: int, timeline: Timeline | None = None) -> Iterator[int]:
        if self.all_at_once:
            return repeat(0)
        return (round(index * SECOND / self.rate) for index in count())


@ARRIVALS.register("poisson")
class Poisson(_Rated):
    """Independent users: gaps are exponential with mean 1 / rate."""

    arrivals: Literal["poisson"] = "poisson"

    def offsets_ns(self, seed: int, timeline: Timeline | None = None) -> Iterator[int]:
        if self.all_at_once:
            yield from repeat(0)
        mean_gap_ns, offset_ns = SECOND / self.rate, 0.0
        for index in count():
            offset_ns -= mean_gap_ns * math.log(uniform(seed, b"arrivals", index))
            yield round(offset_ns)


@ARRIVALS.register("trace")
class Trace(OpenLoop):
    """The prompt source's own recorded times, as they were, or faster or slower."""

    arrivals: Literal["trace"] = "trace"
    speed: Rate | None = Field(default=None, description="2 replays an hour in 30 minutes; 1 without it")
    rate: Rate | None = Field(
        default=None, description="stretch the times so that the slice has this mean rate, requests per second"
    )

    @model_validator(mode="after")
    def _one_scale(self) -> Trace:
        if self.speed is not None and self.rate is not None:
            raise ValueError("speed and rate both scale the trace's times; keep one")
        return self

    @property
    def all_at_once(self) -> bool:
        return math.inf in (self.speed, self.rate)

    def offsets_ns(self, seed: int, timeline: Timeline | None = None) -> Iterator[int]:
        if timeline is None or timeline.size is None:
            raise ValueError("arrivals: trace needs a prompt source with recorded times")
        speed = self._speed(timeline, timeline.size)
        for index in range(timeline.size):
            yield round(timeline.offset_ns(index) / speed)

    def _speed(self, timeline: Timeline, size: int) -> float:
        if self.rate is None:
            return self.speed or 1.0
        span_ns = timeline.offset_ns(size - 1) - timeline.offset_ns(0) if size else 0
        # n arrivals have n - 1 gaps between them.
        return self.rate * span_ns / ((size - 1) * SECOND) if span_ns else 1.0
