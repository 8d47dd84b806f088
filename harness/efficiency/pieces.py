"""What a piece of evidence for the resource that binds a run is: one decorated function each, with its figure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from servemark.harness.efficiency.facts import Facts
from servemark.harness.efficiency.thresholds import Thresholds
from servemark.harness.registry import Registry

Resource = Literal["client", "compute", "capacity", "bandwidth", "queueing"]


@dataclass(frozen=True, slots=True)
class Evidence:
    """A figure beyond its threshold; `text` is a sentence that holds both."""

    figure: str
    value: float
    threshold: float
    text: str


@dataclass(frozen=True, slots=True)
class Piece:
    """`about` is the function's docstring: what it looks at."""

    resource: Resource
    about: str
    judge: Callable[[Facts, Thresholds], Evidence | None]


EVIDENCE: Registry[Piece] = Registry("piece of evidence")


def evidence(name: str, resource: Resource) -> Callable[[Callable[[Facts, Thresholds], Evidence | None]], Any]:
    """Registers a function that looks for one figure."""

    def add(judge: Callable[[Facts, Thresholds], Evidence | None]) -> Callable[[Facts, Thresholds], Evidence | None]:
        EVIDENCE.register(name)(Piece(resource, " ".join((judge.__doc__ or "").split()), judge))
        return judge

    return add
