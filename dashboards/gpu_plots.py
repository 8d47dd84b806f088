"""What GPUs told over time, as plots: a figure for each quantity, with the time in which clocks were held down."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from servemark.dashboards import plots
from servemark.dashboards.panels import Data, Figure
from servemark.harness.clock import SECOND
from servemark.harness.gpu.reasons import harmful
from servemark.harness.types import GpuSample
from servemark.results.schema import number, text

MOST_GPUS = 16
MOST_SPANS = 100
MOST_POINTS = 600
COLOURS = ("decode", "ttft", "tpot", "e2e", "requests", "error", "flight", "queue")
DASHES = ("solid", "dash")
UTILISATION = (
    "Utilisation is the share of time in which any kernel ran, and the memory's the share in which it was touched: "
    "neither says how busy the GPU was."
)
_GIB = 2**30


@dataclass(frozen=True, slots=True)
class Quantity:
    """One figure: fields that share an axis, each with its name, and what their values are multiplied by.

    Of several GPUs the first field is drawn alone.
    """

    label: str
    axis: str
    fields: tuple[tuple[str, str], ...]
    scale: float = 1.0
    note: str = ""


QUANTITIES = (
    Quantity("DRAM bandwidth", "share of the peak, %", (("dram_active", "DRAM"),), 100),
    Quantity("Cores at work", "share of time, %", (("tensor_active", "tensor cores"), ("sm_active", "SMs")), 100),
    Quantity("Power", "power, W", (("power", "power"),)),
    Quantity("Clocks", "clock, MHz", (("sm_clock", "SM"), ("memory_clock", "memory"))),
    Quantity("Memory in use", "memory, GiB", (("memory_used", "memory"),), 1 / _GIB),
    Quantity("Temperature", "temperature, °C", (("temperature", "chip"),)),
    Quantity(
        "Utilisation as nvidia-smi shows it",
        "share of time, %",
        (("utilisation", "any kernel"), ("memory_busy", "memory touched")),
        100,
        UTILISATION,
    ),
    Quantity(
        "Links",
        "traffic, GB/s",
        (("pcie_rx", "PCIe in"), ("pcie_tx", "PCIe out"), ("nvlink_rx", "NVLink in"), ("nvlink_tx", "NVLink out")),
        1e-9,
    ),
)


def names(told: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """A short name for each GPU; those of several machines share their numbers, so these have their UUID too."""
    short = {text(each.get("gpu"), 200): _short(each) for each in told}
    often = Counter(short.values())
    return {uuid: name if often[name] == 1 else f"{name} ({text(uuid, 14)})" for uuid, name in short.items()}


def _short(found: Mapping[str, Any]) -> str:
    index = number(found.get("index"))
    return text(found.get("gpu"), 24) if index is None else f"GPU {index:.0f}"


def figures(data: Data, named: Mapping[str, str]) -> Iterator[Figure]:
    """Of the first MOST_GPUS GPUs that were read."""
    by_gpu = _by_gpu(data.gpu)
    shown = {named.get(uuid, text(uuid, 200)): own for uuid, own in list(by_gpu.items())[:MOST_GPUS]}
    shapes = [*plots.shading(data.window_s, data.end_s), *_held(data, by_gpu)]
    for quantity in QUANTITIES:
        if traces := list(_traces(data, shown, quantity)):
            layout = {
                "xaxis": plots.time_axis(data.end_s),
                "yaxis": plots.axis(quantity.axis, rangemode="tozero"),
                "shapes": shapes,
                "hovermode": "x unified",
            }
            first = f", {quantity.fields[0][1]}" if len(shown) > 1 and len(quantity.fields) > 1 else ""
            yield Figure(quantity.label + first, traces, layout, 260, quantity.note, half=True)


def _by_gpu(samples: Sequence[GpuSample]) -> dict[str, list[GpuSample]]:
    found: dict[str, list[GpuSample]] = {}
    for sample in samples:
        found.setdefault(sample.gpu, []).append(sample)
    return found


def _traces(data: Data, shown: Mapping[str, Sequence[GpuSample]], quantity: Quantity) -> Iterator[plots.Trace]:
    """Colours tell several GPUs apart, or the fields of a single one."""
    several = len(shown) > 1
    for place, (gpu, samples) in enumerate(shown.items()):
        for nth, (name, label) in enumerate(quantity.fields[:1] if several else quantity.fields):
            known = [sample for sample in samples if name in sample.values]
            if not known:
                continue
            drawn = plots.spread(len(known), MOST_POINTS).tolist()
            at = np.array([known[i].at_ns for i in drawn], dtype=np.int64)
            values = [known[i].values[name] * quantity.scale for i in drawn]
            role, dash = COLOURS[(place + nth) % len(COLOURS)], DASHES[place // len(COLOURS) % len(DASHES)]
            drawn_at = plots.times(data.seconds(at)), plots.numbers(values)
            yield plots.line(*drawn_at, gpu if several else label, role, line={"dash": dash}, width=1.4)


def _held(data: Data, by_gpu: Mapping[str, Sequence[GpuSample]]) -> Iterator[dict[str, Any]]:
    """Spans in which the clocks of any GPU were held down; a reading stands for the time since the one before it."""
    spans = sorted(
        ((before.at_ns - data.zero_ns) / SECOND, (sample.at_ns - data.zero_ns) / SECOND)
        for samples in by_gpu.values()
        for before, sample in pairwise(samples)
        if harmful(number(sample.values.get("throttle")) or 0.0)
    )
    for start, end in _joined(spans)[:MOST_SPANS]:
        yield {
            "type": "rect", "xref": "x", "yref": "paper", "name": "held",
            "x0": round(start, 3), "x1": round(end, 3), "y0": 0, "y1": 1,
        }  # fmt: skip


def _joined(spans: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    found: list[tuple[float, float]] = []
    for start, end in spans:
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((start, end))
    return found
