"""What every distribution of lengths says of itself, and their registry."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from typing import Self, TypeVar

from pydantic import Field, model_validator

from servemark.harness.plan.strict import Count, Strict
from servemark.harness.registry import Registry


class FromData(Strict):
    """A part of the workload file that may take its lengths from a file of their own."""

    def ready(self, folder: Path) -> Self:
        """The same with its file read, if it has one; a relative path starts at `folder`. Raises BadInput."""
        return self

    @property
    def digest(self) -> str | None:
        """SHA-256 of the data that was read."""
        return None

    @property
    def notes(self) -> tuple[str, ...]:
        """How the lengths differ from the data that was read, for the result."""
        return ()


class Lengths(FromData):
    """A distribution of token counts, all of them at least 1. It is made ready before anything is drawn."""

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


class Clipped(Lengths):
    """Draws outside [min, max] become the nearer limit."""

    min: Count = Field(default=1, description="shorter draws become this")
    max: Count | None = Field(default=None, description="longer draws become this; without it there is no limit")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.max is not None and self.max < self.min:
            raise ValueError(f"max {self.max} is below min {self.min}; swap them")
        return self

    def _clip(self, length: float) -> int:
        """Infinity, which a draw far out may be, is above every limit."""
        rounded = max(self.min, round(min(length, MOST_DRAWN)))
        return rounded if self.max is None else min(self.max, rounded)

    @property
    def least(self) -> int:
        return self.min

    @property
    def most(self) -> int | None:
        return self.max


MOST_DRAWN = 10**9
"""No draw is longer, however wide its distribution."""


def together(digests: Iterable[str | None]) -> str | None:
    """One digest for the data of several: that of the only one, else one of them all; None where none was read."""
    found = [digest for digest in digests if digest is not None]
    return found[0] if len(found) == 1 else sha256(" ".join(found).encode()).hexdigest() if found else None


M = TypeVar("M", bound=Strict)


def with_data(model: M, folder: Path) -> tuple[M, list[FromData]]:
    """A model all of whose lengths are ready, at any depth, and those lengths. Raises BadInput."""
    changed: dict[str, Strict] = {}
    found: list[FromData] = []
    for name in type(model).model_fields:
        value = getattr(model, name)
        if isinstance(value, FromData):
            value = changed[name] = value.ready(folder)
            found.append(value)
        elif isinstance(value, Strict):
            changed[name], below = with_data(value, folder)
            found += below
    return (model.model_copy(update=changed) if found else model), found
