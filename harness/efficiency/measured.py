"""What the GPUs themselves say of a window: means of their readings, weighted by time, and the energy they took."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from servemark.harness.clock import SECOND
from servemark.harness.efficiency.readings import Level, weighted
from servemark.harness.figures.frame import Window
from servemark.harness.gpu.fields import GPU_FIELDS
from servemark.harness.gpu.reasons import harmful
from servemark.harness.hardware.joules import joules_between
from servemark.harness.types import GpuSample

Readings = Sequence[tuple[int, float]]

LEVELS = tuple(name for name, field in GPU_FIELDS.items() if field.kind == "level" and name != "throttle")


@dataclass(frozen=True, slots=True)
class Watched:
    """One GPU in the window. `levels` by names of GPU_FIELDS; `joules` where its energy or its power is told."""

    gpu: str
    levels: Mapping[str, Level]
    samples: int
    joules: float | None = None
    energy_source: str | None = None
    throttled_share: float | None = None
    busy: tuple[float, ...] = ()
    """Means of what was read in the window, however little: of a GPU that was lost in it too."""

    def mean(self, name: str) -> float | None:
        found = self.levels.get(name)
        return None if found is None else found.mean


def watched(samples: Sequence[GpuSample], window: Window) -> list[Watched]:
    """Each GPU that was read, in order of its first reading."""
    by_gpu: dict[str, list[GpuSample]] = {}
    for sample in samples:
        by_gpu.setdefault(sample.gpu, []).append(sample)
    return [_watched(gpu, own, window) for gpu, own in by_gpu.items()]


def _watched(gpu: str, samples: Sequence[GpuSample], window: Window) -> Watched:
    levels = {name: weighted(readings(samples, name), window) for name in LEVELS}
    held = weighted([(at_ns, float(harmful(bits))) for at_ns, bits in readings(samples, "throttle")], window)
    joules, source = _joules(samples, window)
    inside = [sample for sample in samples if window.start_ns <= sample.at_ns < window.end_ns]
    return Watched(
        gpu=gpu,
        levels={name: found for name, found in levels.items() if found is not None},
        samples=len(inside),
        joules=joules,
        energy_source=source,
        throttled_share=None if held is None else held.mean,
        busy=tuple(_plain_mean([value for _, value in readings(inside, name)]) for name in _BUSY),
    )


def _plain_mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def readings(samples: Sequence[GpuSample], name: str) -> Readings:
    return [(sample.at_ns, sample.values[name]) for sample in samples if name in sample.values]


_BUSY = ("dram_active", "sm_active", "utilisation", "power", "memory_used")


def serving(gpus: Sequence[Watched], wanted: int) -> Sequence[Watched]:
    """The busiest, where more are read than serve."""
    return gpus if len(gpus) <= wanted else sorted(gpus, key=lambda each: each.busy, reverse=True)[:wanted]


def mean_of(gpus: Sequence[Watched], name: str) -> float | None:
    """Over the GPUs, each of which counts the same; None where one of them does not tell."""
    found = [each.mean(name) for each in gpus]
    known = [value for value in found if value is not None]
    return sum(known) / len(known) if known and len(known) == len(found) else None


def in_bins(samples: Sequence[GpuSample], gpus: Sequence[str], name: str, edges_ns: Any) -> list[float | None]:
    """The mean over these GPUs in each bin."""
    own = {gpu: readings([each for each in samples if each.gpu == gpu], name) for gpu in gpus}
    found: list[float | None] = []
    for start, end in zip(edges_ns[:-1].tolist(), edges_ns[1:].tolist(), strict=True):
        levels = [weighted(_near(each, start, end), Window(start, end)) for each in own.values()]
        known = [level.mean for level in levels if level is not None]
        found.append(sum(known) / len(known) if known and len(known) == len(levels) else None)
    return found


def _near(found: Readings, start_ns: int, end_ns: int) -> Readings:
    """Readings whose time may lie in the bin: those in it, the last before it and the first after it."""
    stamps = [at_ns for at_ns, _ in found]
    first, last = np.searchsorted(stamps, (start_ns, end_ns))
    return found[max(0, int(first) - 1) : int(last) + 1]


def _joules(samples: Sequence[GpuSample], window: Window) -> tuple[float | None, str | None]:
    energy, power = (
        [(at_ns / SECOND, value) for at_ns, value in readings(samples, name)] for name in ("energy", "power")
    )
    found = joules_between(energy, power, window.start_ns / SECOND, window.end_ns / SECOND)
    return (None, None) if found is None else found
