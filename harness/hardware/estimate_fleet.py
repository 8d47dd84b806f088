"""How many servers a rate of requests needs, and what they cost."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import ceil
from typing import Any, Literal

from servemark.harness.hardware.estimate_point import Point
from servemark.harness.hardware.layout import Layout
from servemark.harness.hardware.price import Price

_EXACT = 1e-9
"""A rate that servers reach to the last digit needs no further one."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """Servers that are always full, so the fewest: arrivals that come in bursts, and spares, need more.

    `basis` is what it was worked out from; from bounds it is what is needed at least.
    """

    basis: Literal["bound", "predicted"]
    batch: int
    rps_per_server: float
    servers: int
    gpus: int
    usd_per_hour: float | None
    assumed: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def fleet(
    rate: float, point: Point | None, basis: Literal["bound", "predicted"], layout: Layout, price: Price | None
) -> Fleet | None:
    """None where there is no batch to run at. The replicas that were asked for play no part."""
    if point is None or not point.rps:
        return None
    each = point.rps / layout.replicas
    servers = max(1, ceil(rate / each * (1 - _EXACT)))
    gpus = servers * layout.gpus_per_server
    usd = None if price is None else price.usd_per_gpu_hour * gpus
    return Fleet(basis, point.batch, each, servers, gpus, usd, point.assumed)
