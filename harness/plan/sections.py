"""The sections of the workload file that are the same for every source and every load."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator

from servemark.harness.plan.strict import Count, Duration, PositiveDuration, Strict, Warmup, WarmupField, one_or_many
from servemark.harness.plan.times import Times, TimesField
from servemark.harness.types import Endpoint, Options
from servemark.harness.units import parse_duration

DEFAULT_DURATION = "60s"
DEFAULT_WARMUP = "10s"


class Timeouts(Strict):
    """When a request is given up, which makes it a failed one."""

    connect: PositiveDuration = Field(default=10 * 10**9, description="for the connection to stand")
    first_event: PositiveDuration = Field(default=120 * 10**9, description="from sending to the first event")
    gap: PositiveDuration = Field(default=60 * 10**9, description="between two arrivals of bytes")
    total: PositiveDuration = Field(default=600 * 10**9, description="for the whole request")


class GiveUp(Strict):
    """Clients that hang up when they have waited too long, which is no failure of the server's."""

    share: Annotated[float, Field(gt=0, le=1)] = Field(description="share of the requests whose clients do")
    after: TimesField = Field(description="how long they wait from the intended time on: a time or a distribution")
    unless: Literal["first_token", "end"] = Field(
        default="first_token", description="what they wait for: the first token, or the end of the answer"
    )

    @field_validator("after")
    @classmethod
    def _waits(cls, after: Times) -> Times:
        if after.never:
            raise ValueError("a client that waits no time asks nothing; write a time such as 2s")
        return after


class RequestSection(Strict):
    """What all requests have in common."""

    endpoint: Endpoint | None = Field(
        default=None,
        description="chat, completions, or generate (the server's own route); null takes the target's first",
    )
    temperature: Annotated[float, Field(ge=0)] | None = Field(
        default=0.0, description="0 is greedy; null leaves it to the server"
    )
    top_p: Annotated[float, Field(gt=0, le=1)] | None = Field(default=None, description="null leaves it to the server")
    force_output_length: bool = Field(
        default=True, description="make the server produce exactly the asked output length, where it can"
    )
    extra_body: dict[str, Any] = Field(default_factory=dict, description="fields added to each request's JSON body")
    headers: dict[str, str] = Field(default_factory=dict, description="headers added to each request; no secrets")
    connections: Literal["reuse", "fresh"] = Field(
        default="reuse", description="kept alive and opened ahead, or a new one for each request"
    )
    timeouts: Timeouts = Timeouts()
    give_up: GiveUp | None = Field(default=None, description="clients that hang up; null: all wait to the end")

    def options(self, model: str, endpoint: Endpoint) -> Options:
        """The part that a server's adapter encodes, with the endpoint that was settled on."""
        return Options(
            model=model,
            endpoint=endpoint,
            temperature=self.temperature,
            top_p=self.top_p,
            force_output_length=self.force_output_length,
            extra_body=self.extra_body,
        )


CacheProtocol = Literal["cold", "warm", "as_is"]

Seed = Annotated[int, Field(ge=0, lt=2**63)]


class SeedsSection(Strict):
    """One seed per dimension; the same seeds give the same requests at the same times."""

    arrivals: Seed = Field(default=0, description="of the times: gaps between requests, think times, who gives up")
    prompts: Seed | None = Field(
        default=None, description="of the prompts' words; null draws a new one for each run and records it"
    )
    lengths: Seed = Field(default=0, description="of the lengths")
    order: Seed = Field(default=0, description="of the order in which data is used")
    salt: Seed | None = Field(
        default=None,
        description="mixed into all prompts; null: none, or a new one where `cache: cold` needs it, which is recorded",
    )


class RunSection(Strict):
    """How long the run takes."""

    duration: PositiveDuration | None = Field(
        default=None,
        description=f"time that counts; without it and `requests` {DEFAULT_DURATION}, or the whole trace",
    )
    requests: Count | None = Field(default=None, description="end after so many requests that count")
    warmup: WarmupField = Field(
        default=Warmup(duration_ns=parse_duration(DEFAULT_WARMUP)),
        description="time, or number of requests, that do not count; 0 when all requests are intended at once",
    )
    drain: Duration = Field(default=30 * 10**9, description="how long requests in flight may finish at the end")
    cache: CacheProtocol = Field(
        default="as_is",
        description="the server's prefix cache at the start: cold (emptied, else prompts are salted), warm (prompts "
        "that come again are sent once before), or as_is",
    )
    seeds: SeedsSection = SeedsSection()


_LIMIT = re.compile(r"^\s*[a-z_0-9]+(:[a-z]+[0-9_.]*)?\s*=\s*[^=,\s][^=,]*$")


class _Limits(Strict):
    """What answers should meet."""

    limits: Annotated[
        tuple[str, ...], BeforeValidator(one_or_many, json_schema_input_type=str | tuple[str, ...]), Field(strict=False)
    ] = Field(default=(), description="limits, separated by commas, as one text or a list of texts")
    attainment: Annotated[float, Field(gt=0, le=1)] | None = Field(
        default=None, description="share of requests that must meet every limit on requests"
    )

    @field_validator("limits")
    @classmethod
    def _look_right(cls, limits: tuple[str, ...]) -> tuple[str, ...]:
        for limit in (part for text in limits for part in text.split(",")):
            if not _LIMIT.match(limit):
                raise ValueError(f"{limit.strip()!r} is no limit; write ttft=200ms or ttft:p99=500ms")
        return limits


class SloSection(_Limits):
    """Service level objectives: `ttft=200ms` is a limit on each request, `ttft:p99=500ms` one on the run."""

    gate: bool = Field(default=False, description="a missed objective ends the command with exit code 1")


class ClassSlo(_Limits):
    """Those of one class: its own limits stand in place of the file's limits on requests."""
