"""MBU, MFU and the batch over time, in bins of a second at least."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from servemark.harness.clock import SECOND
from servemark.harness.efficiency.measured import in_bins
from servemark.harness.efficiency.modelled import Modelled
from servemark.harness.efficiency.thresholds import THRESHOLDS
from servemark.harness.hardware.devices import Gpu
from servemark.harness.hardware.utilisation import mbu, mfu
from servemark.harness.types import GpuSample


def over_time(
    modelled: Modelled,
    gpu: Gpu | None,
    gpus: int,
    samples: Sequence[GpuSample],
    names: Sequence[str],
    start_s: float = 0.0,
    requests_per_token: float = 1.0,
) -> list[dict[str, Any]]:
    """The first bin begins at `start_s`; `names` are the GPUs whose readings count.

    `requests_per_token` is how many requests of a server decode for each token that a step gives.
    """
    edges = modelled.edges_ns
    measured = {field: in_bins(samples, names, field, edges) for field in ("dram_active", "tensor_active")}
    rows = []
    for place in range(len(edges) - 1):
        steps, decoded = float(modelled.steps[place]), float(modelled.decoded[place])
        rows.append(
            {
                "from_s": start_s + float(edges[place] - edges[0]) / SECOND,
                "to_s": start_s + float(edges[place + 1] - edges[0]) / SECOND,
                **_modelled(modelled, place, gpu, gpus),
                "mbu_measured": possible(measured["dram_active"][place]),
                "tensor_active": possible(measured["tensor_active"][place]),
                "batch": decoded / steps * requests_per_token if steps > 0 else None,
            }
        )
    return rows


def _modelled(modelled: Modelled, place: int, gpu: Gpu | None, gpus: int) -> dict[str, float | None]:
    if gpu is None:
        return {"mbu_modelled": None, "mfu_modelled": None}
    seconds = float(modelled.seconds[place])
    flops = {dtype: float(each[place]) for dtype, each in modelled.flops.items()}
    return {
        "mbu_modelled": possible(mbu(float(modelled.bytes[place]), seconds, gpus, gpu.bytes_per_s)),
        "mfu_modelled": possible(mfu(flops, seconds, gpus, gpu.flops_per_s)),
    }


def possible(share: float | None) -> float | None:
    """A share of a peak, or None where it cannot be one (nan too)."""
    return share if share is not None and 0 <= share <= THRESHOLDS.possible else None
