"""The one vocabulary of GPU readings, whoever takes them: NVML, our exporter, or a dcgm-exporter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class GpuField:
    """A level is what is at one moment or the mean since the last reading; a counter only grows."""

    unit: str
    kind: Literal["level", "counter"]
    about: str


GPU_FIELDS: Mapping[str, GpuField] = {
    "utilisation": GpuField("share", "level", "Share of time in which any kernel ran; not how busy it was."),
    "memory_busy": GpuField("share", "level", "Share of time in which memory was touched at all; no bandwidth."),
    "memory_used": GpuField("B", "level", "Memory in use."),
    "power": GpuField("W", "level", "Power drawn."),
    "energy": GpuField("J", "counter", "Energy drawn since the driver was loaded."),
    "sm_clock": GpuField("MHz", "level", "Clock of the SMs."),
    "memory_clock": GpuField("MHz", "level", "Clock of the memory."),
    "temperature": GpuField("°C", "level", "Temperature of the chip."),
    "throttle": GpuField("", "level", "Why the clocks were held down: a sum of bits, see docs/gpu.md."),
    "pcie_rx": GpuField("B/s", "level", "Received over PCIe."),
    "pcie_tx": GpuField("B/s", "level", "Sent over PCIe."),
    "nvlink_rx": GpuField("B/s", "level", "Received over NVLink."),
    "nvlink_tx": GpuField("B/s", "level", "Sent over NVLink."),
    "dram_active": GpuField("share", "level", "Share of the peak DRAM bandwidth that was moved."),
    "sm_active": GpuField("share", "level", "Share of SMs and time with at least one warp."),
    "sm_occupancy": GpuField("share", "level", "Share of the warps that the SMs could hold."),
    "tensor_active": GpuField("share", "level", "Share of time in which the tensor cores worked."),
}
