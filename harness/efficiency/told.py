"""What the server itself estimates of its work, as vLLM does with --enable-mfu-metrics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from servemark.harness.efficiency.readings import grown
from servemark.harness.figures.frame import Window
from servemark.harness.hardware.layout import Layout
from servemark.harness.types import ServerSample


@dataclass(frozen=True, slots=True)
class Told:
    """Of one GPU in the window; None where it is not told. Bytes are read and written ones together."""

    flops: float | None
    bytes: float | None


def told(samples: Sequence[ServerSample], window: Window, layout: Layout) -> Told:
    """Each data rank of each replica has counters of its own, which a reading holds added up.

    vLLM shows the counters, at 0, where it does not estimate.
    """
    engines = layout.data * layout.replicas
    flops, read, written = (
        grown(samples, name, window)
        for name in ("est_flops_per_gpu", "est_read_bytes_per_gpu", "est_write_bytes_per_gpu")
    )
    return Told(flops / engines if flops else None, (read + (written or 0.0)) / engines if read else None)
