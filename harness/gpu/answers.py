"""What one answer of an exporter of GPUs holds, whichever exporter it is; and the care that foreign text takes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from servemark.harness.plaintext import one_line
from servemark.harness.server.prometheus import Metrics

MOST_GPUS = 1024
_LONGEST_NAME = 128
_DEEPEST = 3


@dataclass(frozen=True, slots=True)
class Reading:
    """Of one GPU. `at_ns` is on the exporter's own clock, None where it does not say when it was taken."""

    gpu: str
    values: Mapping[str, float]
    at_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """`asked_ns` and `answered_ns` are when the exporter was asked and answered, on its clock; None: it has none.

    `facts` are what there is to say of it all: `gpus`, `missing`, `notes`, as a GpuWatch tells them.
    """

    readings: tuple[Reading, ...]
    asked_ns: int | None = None
    answered_ns: int | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Exporter:
    """One kind: whether a text is its, and what the text says. `read` raises ValueError with the reason."""

    name: str
    title: str
    is_its: Callable[[Metrics], bool]
    read: Callable[[Metrics], Answer]
    slowest_s: float = 0.0
    """It is not asked more often than this: it has nothing new so soon."""


def named(text: str) -> str:
    """A GPU's or a host's name from outside: short, on one line, and no steering of terminals."""
    return one_line(text, _LONGEST_NAME)


def clean(value: Any, depth: int = _DEEPEST) -> Any:
    """What came as JSON, cut down to what may stand in a result: no depths, no endless texts, no infinities."""
    if isinstance(value, str):
        return one_line(value)
    if isinstance(value, bool | int) or value is None:
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if depth and isinstance(value, dict):
        return {named(str(key)): clean(each, depth - 1) for key, each in list(value.items())[:MOST_GPUS]}
    if depth and isinstance(value, list):
        return [clean(each, depth - 1) for each in value[:MOST_GPUS]]
    return None
