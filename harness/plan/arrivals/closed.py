"""Users who wait for their answers."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from servemark.harness.plan.arrivals.base import ARRIVALS, Load
from servemark.harness.plan.strict import Count, Duration
from servemark.harness.plan.times import Fixed, TimesField


@ARRIVALS.register("closed")
class ClosedLoop(Load):
    """So many users, each of whom sends the next request when the last one is answered."""

    arrivals: Literal["closed"] = Field(default="closed", description="may be left out beside `concurrency`")
    concurrency: Count = Field(description="requests in flight")
    think_time: TimesField = Field(
        default=Fixed(time="0s"),  # type: ignore[arg-type]
        description="pause of each user between an answer and the next request: a time or a distribution",
    )
    ramp_up: Duration = Field(default=0, description="the users start evenly spread over this time")
    requests_per_minute: Count | None = Field(
        default=None, description="at most so many, evenly spread, as hosted endpoints allow; null: no cap"
    )
