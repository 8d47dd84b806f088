"""Arrivals at recorded times."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal

from pydantic import Field, model_validator

from servemark.harness.plan.arrivals.base import ARRIVALS, SECOND, OpenLoop, Timeline
from servemark.harness.plan.strict import Rate


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

    @property
    def mean_rate(self) -> float | None:
        return self.rate

    def offsets_ns(self, seed: int, timeline: Timeline | None = None) -> Iterator[int]:
        if timeline is None or timeline.size is None:
            raise ValueError("arrivals: trace needs a prompt source with recorded times")
        scale = self.scale(timeline)
        for index in range(timeline.size):
            yield round(timeline.offset_ns(index) / scale)

    def scale(self, timeline: Timeline) -> float:
        """How many times faster than recorded."""
        if self.rate is None:
            return self.speed or 1.0
        size = timeline.size or 0
        span_ns = timeline.offset_ns(size - 1) - timeline.offset_ns(0) if size else 0
        # n arrivals have n - 1 gaps between them.
        return self.rate * span_ns / ((size - 1) * SECOND) if span_ns else 1.0
