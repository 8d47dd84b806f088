"""What every load says of itself, and the registry of arrival processes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from pydantic import Field

from servemark.harness.plan.strict import Count, Strict
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

    @property
    def mean_rate(self) -> float | None:
        """Requests per second in the long run; None where the server's answers or recorded times decide."""
        return None

    @property
    def peak_rate(self) -> float | None:
        """The highest rate on the way."""
        return self.mean_rate

    @property
    def varies(self) -> bool:
        """The rate changes by plan, so that nothing is expected to be steady."""
        return False

    @property
    def lasts_ns(self) -> int | None:
        """When it ends by nature; None where it does not, or where a trace decides."""
        return None

    def course(self) -> tuple[dict[str, Any], ...]:
        """What a result says of its parts, where it has any: when each begins and ends, and the rates there."""
        return ()


ARRIVALS: Registry[type[Load]] = Registry("arrival process")


class OpenLoop(Load):
    """Load that arrives whether or not earlier requests have finished."""

    max_concurrency: Count | None = Field(
        default=None, description="at most so many in flight; waiting for a slot counts from the intended time"
    )

    def offsets_ns(self, seed: int, timeline: Timeline | None = None) -> Iterator[int]:
        """Ascending offsets from the start of the run; endless unless the load or the timeline ends."""
        raise NotImplementedError
