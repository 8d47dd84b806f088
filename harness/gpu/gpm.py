"""GPM: what the chip counts of itself, Hopper and newer. The one true DRAM bandwidth that NVML has."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from servemark.harness.clock import SECOND
from servemark.harness.gpu.library import gone, said

LEAST_GAP_S = 0.2
"""Two samples lie at least so far apart: NVML asks for 100 ms, and shorter ones tell nonsense."""
_SLACK = 0.95  # a reading that comes a little early still counts
_MIB = 1024.0 * 1024.0
_PLAUSIBLE = 1.05
_DOUBTS = 20
"""Readings of nothing but zeros, while kernels ran, after which GPM is not believed any more."""


@dataclass(frozen=True, slots=True)
class Metric:
    number: int
    scale: float
    share: bool = True


METRICS: Mapping[str, Metric] = {
    "sm_active": Metric(2, 0.01),
    "sm_occupancy": Metric(3, 0.01),
    "tensor_active": Metric(5, 0.01),
    "dram_active": Metric(10, 0.01),
    "pcie_tx": Metric(20, _MIB, share=False),
    "pcie_rx": Metric(21, _MIB, share=False),
    "nvlink_rx": Metric(60, _MIB, share=False),
    "nvlink_tx": Metric(61, _MIB, share=False),
}
"""Our fields: NVML's numbers, and what makes percent and MiB/s a share and B/s."""


class Gpm:
    """One GPU's, or one MIG instance's. `works` is None until a real pair of samples has told.

    That the driver says it supports GPM proves nothing: in sandboxes the samples fail, or hold zeros.
    """

    def __init__(self, nvml: Any, take: Callable[[Any], object]) -> None:
        self.works: bool | None = None
        self.why = ""
        self.missing: dict[str, str] = {}
        self._nvml = nvml
        self._take = take
        self._last: Any = None
        self._spare: Any = None
        self._taken_ns = 0
        self._proven = False
        self._doubts = 0

    def begin(self, support: Callable[[], Any], at_ns: int) -> None:
        """The first sample, with which nothing can be said yet."""
        nvml = self._nvml
        try:
            if not support().isSupportedDevice:
                self.give_up("this GPU has no GPM (it takes Hopper or newer)")
                return
            self._last, self._spare = nvml.nvmlGpmSampleAlloc(), nvml.nvmlGpmSampleAlloc()
            self._take(self._last)
            self._taken_ns = at_ns
        except nvml.NVMLError as error:
            self._failed(error)

    def give_up(self, why: str) -> None:
        self.works, self.why = False, why
        self.end()

    def end(self) -> None:
        """The buffers are the driver's memory."""
        for sample in (self._last, self._spare):
            if sample is not None:
                try:
                    self._nvml.nvmlGpmSampleFree(sample)
                except self._nvml.NVMLError:  # NVML is gone, and its memory with it
                    break
        self._last = self._spare = None

    def read(self, at_ns: int) -> dict[str, float]:
        """The means since the last sample, to be held against `believed`; nothing where that is too fresh.

        Raises NVMLError only where the GPU is gone.
        """
        if self.works is False or at_ns - self._taken_ns < LEAST_GAP_S * _SLACK * SECOND:
            return {}
        try:
            self._take(self._spare)
            found = self._between(self._last, self._spare)
        except self._nvml.NVMLError as error:
            if gone(error):
                raise
            self._failed(error)
            return {}
        self._last, self._spare, self._taken_ns = self._spare, self._last, at_ns
        if not found:
            self.give_up("the driver offers GPM, but none of its metrics can be read")
        return found

    def _failed(self, error: Any) -> None:
        self.give_up(f"the driver offers GPM, but a sample of it fails ({said(error)})")

    def _between(self, first: Any, second: Any) -> dict[str, float]:
        nvml = self._nvml
        asked = nvml.c_nvmlGpmMetricsGet_t()
        asked.version = nvml.NVML_GPM_METRICS_GET_VERSION
        asked.numMetrics = len(METRICS)
        asked.sample1, asked.sample2 = first, second
        for place, metric in enumerate(METRICS.values()):
            asked.metrics[place].metricId = metric.number
        nvml.nvmlGpmMetricsGet(asked)
        found = {}
        for (name, metric), told in zip(METRICS.items(), asked.metrics, strict=False):
            value = told.value * metric.scale
            if told.nvmlReturn != nvml.NVML_SUCCESS:
                self.missing[name] = f"GPM has none of it here ({said(nvml.NVMLError(told.nvmlReturn))})"
            elif not math.isfinite(value) or value < 0 or (metric.share and value > _PLAUSIBLE):
                self.missing[name] = "GPM told a value that cannot be"
            else:
                self.missing.pop(name, None)
                found[name] = value
        return found

    def believed(self, found: dict[str, float], busy: float) -> dict[str, float]:
        """Zeros are believed of an idle GPU (`busy` is the share of time with kernels), and after anything else."""
        if not found:
            return {}
        self._proven = self._proven or any(found.values())
        if self._proven or not busy:
            self.works = self._proven or self.works
            return found
        self._doubts += 1
        if self._doubts >= _DOUBTS:
            self.give_up("the driver offers GPM, but it told nothing but zeros while kernels ran")
        return {}
