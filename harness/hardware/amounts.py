"""Amounts of work: bytes through memories, and FLOPs by the dtype in which they are done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Flops = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Work:
    """Bytes through the memories, and FLOPs by the dtype in which they are done."""

    bytes: float = 0.0
    flops: Flops = field(default_factory=dict)

    def __add__(self, other: Work) -> Work:
        dtypes = {**self.flops, **other.flops}
        both = {dtype: self.flops.get(dtype, 0.0) + other.flops.get(dtype, 0.0) for dtype in dtypes}
        return Work(self.bytes + other.bytes, both)

    def __mul__(self, times: float) -> Work:
        return Work(self.bytes * times, {dtype: flops * times for dtype, flops in self.flops.items()})

    __rmul__ = __mul__


@dataclass(frozen=True, slots=True)
class Step:
    """A pass through all layers. `ranks` data ranks do the `rest`; who does the `experts`, the layout says."""

    rest: Work
    experts: Work
    ranks: int = 1

    @property
    def work(self) -> Work:
        return self.rest + self.experts

    def __add__(self, other: Step) -> Step:
        return Step(self.rest + other.rest, self.experts + other.experts, max(self.ranks, other.ranks))

    def __mul__(self, times: float) -> Step:
        return Step(self.rest * times, self.experts * times, self.ranks)
