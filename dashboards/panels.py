"""Panels of the page: what one is made of, and the registry in which each is one decorated function.

A panel function takes `Data` and returns a Panel, or None where it has nothing to show. The page shows them in the
order in which they are registered.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from servemark.harness.clock import SECOND
from servemark.harness.figures.frame import MISSING, Floats, Frame, Ints
from servemark.harness.registry import Registry
from servemark.harness.types import GpuSample, ServerSample
from servemark.results.schema import number, part


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell of a table; `tone` is one of good, bad, warn, dim, or none, `note` shows when pointed at.

    `link` is relative to the page, with what is no letter of a link quoted.
    """

    text: str
    tone: str = ""
    note: str = ""
    link: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """The columns from `numbers_from` on hold figures and are set to the right.

    With `folded`, a word on what it holds, it is shown only when asked for.
    """

    head: tuple[str, ...]
    rows: Sequence[Sequence[Cell]]
    numbers_from: int = 1
    caption: str = ""
    folded: str = ""
    kind: str = "table"


@dataclass(frozen=True, slots=True)
class Card:
    """One headline figure; `interval` and `also` stand below it; `role` is its colour."""

    label: str
    value: str
    unit: str
    interval: str
    also: str
    role: str
    about: str = ""


@dataclass(frozen=True, slots=True)
class Cards:
    cards: Sequence[Card]
    kind: str = "cards"


@dataclass(frozen=True, slots=True)
class Figure:
    """A plotly figure as plain data; the page gives it its colours by each trace's role."""

    label: str
    data: list[dict[str, Any]]
    layout: dict[str, Any]
    height: int = 320
    note: str = ""
    half: bool = False
    kind: str = "figure"


@dataclass(frozen=True, slots=True)
class Facts:
    """Names with their values."""

    rows: Sequence[tuple[str, str]]
    title: str = ""
    kind: str = "facts"


@dataclass(frozen=True, slots=True)
class Verbatim:
    """Text as it is."""

    text: str
    title: str = ""
    kind: str = "verbatim"


@dataclass(frozen=True, slots=True)
class Note:
    """A sentence."""

    text: str
    tone: str = ""
    kind: str = "note"


Part = Table | Cards | Figure | Facts | Verbatim | Note


@dataclass(frozen=True, slots=True)
class Panel:
    title: str
    about: str
    parts: Sequence[Part]


@dataclass(frozen=True)
class Data:
    """What panels are made from. Times are shown in seconds since the start of the schedule."""

    run: Mapping[str, Any]
    frame: Frame
    samples: Sequence[ServerSample] = field(default_factory=tuple)
    gpu: Sequence[GpuSample] = field(default_factory=tuple)

    @cached_property
    def zero_ns(self) -> int:
        started = part(self.run, "clock").get("started_ns")
        if isinstance(started, int) and abs(started) < 2**62:
            return started
        return int(self.frame["intended_ns"][0]) if len(self.frame) else 0

    def seconds(self, stamps: Ints) -> Floats:
        """Seconds since the start, nan where missing."""
        known = stamps != MISSING
        return np.where(known, np.where(known, stamps - self.zero_ns, 0) / SECOND, np.nan)

    @cached_property
    def end_s(self) -> float:
        """The last thing that happened."""
        return max(0.001, (self.frame.whole_window().end_ns - self.zero_ns) / SECOND) if len(self.frame) else 0.001

    @cached_property
    def window_s(self) -> tuple[float, float] | None:
        """The steady window."""
        found = part(self.run, "clock").get("window_ns")
        if not isinstance(found, list | tuple) or len(found) != 2:
            return None
        start, end = (number(each) for each in found)
        if start is None or end is None or end <= start:
            return None
        return (start - self.zero_ns) / SECOND, (end - self.zero_ns) / SECOND


PANELS: Registry[Callable[[Data], Panel | None]] = Registry("panel")
