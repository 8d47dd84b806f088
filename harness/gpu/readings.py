"""What NVML tells of a GPU without GPM: one function for each call, from NVML's units to ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from servemark.harness.clock import SECOND, now_ns

Read = Callable[[Any, Any], Mapping[str, float]]
"""(pynvml, a GPU's handle) -> fields. Raises NVMLError."""

_ALL_LINKS = 0xFFFFFFFF
"""A field value of NVLink is of link 0 alone unless it is asked for all."""
_KIB = 1024.0
_MEMBER = {0: "dVal", 1: "uiVal", 2: "ulVal", 3: "ullVal", 4: "sllVal", 5: "siVal", 6: "usVal"}
_BITS_32 = frozenset({1, 5})  # NVML's value types: unsigned and signed int
_GB_PER_LANE = {1: 0.25, 2: 0.5, 3: 0.985, 4: 1.969, 5: 3.938, 6: 7.563}


@dataclass(frozen=True, slots=True)
class Reading:
    """One call; `names` are the fields that it gives."""

    names: tuple[str, ...]
    read: Read


def utilisation(nvml: Any, handle: Any) -> Mapping[str, float]:
    """Over the last sample of the driver's, 1/6 s to 1 s. Neither of them is how busy the GPU was."""
    rates = nvml.nvmlDeviceGetUtilizationRates(handle)
    return {"utilisation": rates.gpu / 100, "memory_busy": rates.memory / 100}


def memory(nvml: Any, handle: Any) -> Mapping[str, float]:
    """The second version tells what the driver keeps for itself apart; the first counts it as used."""
    try:
        found = nvml.nvmlDeviceGetMemoryInfo(handle, version=nvml.nvmlMemory_v2)
    except nvml.NVMLError_FunctionNotFound:
        found = nvml.nvmlDeviceGetMemoryInfo(handle)
    return {"memory_used": float(found.used)}


def power_instant(nvml: Any, handle: Any) -> Mapping[str, float]:
    value, _ = field_value(nvml, handle, nvml.NVML_FI_DEV_POWER_INSTANT)
    return {"power": value / 1000}


def power_average(nvml: Any, handle: Any) -> Mapping[str, float]:
    """The mean of the last second on most GPUs from Ampere on."""
    return {"power": nvml.nvmlDeviceGetPowerUsage(handle) / 1000}


def energy(nvml: Any, handle: Any) -> Mapping[str, float]:
    return {"energy": nvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1000}


def clocks(nvml: Any, handle: Any) -> Mapping[str, float]:
    return {
        "sm_clock": float(nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM)),
        "memory_clock": float(nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_MEM)),
    }


def temperature(nvml: Any, handle: Any) -> Mapping[str, float]:
    try:
        found = nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU)
    except nvml.NVMLError_FunctionNotFound:  # it is to go with CUDA 14
        found = nvml.nvmlDeviceGetTemperatureV(handle, nvml.NVML_TEMPERATURE_GPU)
    return {"temperature": float(found)}


def throttle(nvml: Any, handle: Any) -> Mapping[str, float]:
    try:
        return {"throttle": float(nvml.nvmlDeviceGetCurrentClocksEventReasons(handle))}
    except nvml.NVMLError_FunctionNotFound:  # a driver before 535 knows it by its old name
        return {"throttle": float(nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle))}


def field_value(nvml: Any, handle: Any, field: Any) -> tuple[float, int]:
    """A field's value and NVML's number for its type. Raises the error that NVML keeps inside the answer."""
    found = nvml.nvmlDeviceGetFieldValues(handle, [field])[0]
    if found.nvmlReturn != nvml.NVML_SUCCESS:
        raise nvml.NVMLError(found.nvmlReturn)
    if found.valueType not in _MEMBER:
        raise nvml.NVMLError(nvml.NVML_ERROR_NOT_SUPPORTED)
    return float(getattr(found.value, _MEMBER[found.valueType])), int(found.valueType)


class Rate:
    """A counter of bytes as a mean rate since the last reading; the first reading gives none."""

    def __init__(self, name: str, field: Any, unit: float, most_per_s: float | None = None) -> None:
        self.name = name
        self._field = field
        self._unit = unit
        self._most_per_s = most_per_s
        self._last: tuple[int, float] | None = None
        self.why = ""
        """Why it cannot say anything, where that is so."""

    def __call__(self, nvml: Any, handle: Any) -> Mapping[str, float]:
        value, kind = field_value(nvml, handle, self._field)
        at_ns, last = now_ns(), self._last
        self._last = at_ns, value
        if last is None or at_ns <= last[0]:
            return {}
        seconds, moved = (at_ns - last[0]) / SECOND, value - last[1]
        if kind in _BITS_32:
            # It may have wrapped; how often is only known where the link cannot move 4 GiB in the time.
            if self._most_per_s is None or self._most_per_s * seconds >= 2**32 * self._unit:
                self.why = "its counter has 32 bits, and may wrap more than once between two readings"
                return {}
            moved %= 2**32
        return {self.name: moved * self._unit / seconds} if moved >= 0 else {}


def nvlink(nvml: Any) -> tuple[Reading, ...]:
    """Data over all links, in KiB."""
    fields = {
        "nvlink_rx": nvml.NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_RX,
        "nvlink_tx": nvml.NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX,
    }
    return tuple(Reading((name,), Rate(name, (field, _ALL_LINKS), _KIB)) for name, field in fields.items())


def pcie(nvml: Any, most_per_s: float | None) -> tuple[Reading, ...]:
    """NVML's own PCIe throughput holds its caller for 20 ms and looks at these alone; the counters do neither."""
    fields = {"pcie_rx": nvml.NVML_FI_DEV_PCIE_COUNT_RX_BYTES, "pcie_tx": nvml.NVML_FI_DEV_PCIE_COUNT_TX_BYTES}
    return tuple(Reading((name,), Rate(name, field, 1.0, most_per_s)) for name, field in fields.items())


def pcie_bytes_per_s(generation: int | None, width: int | None) -> float | None:
    """What a link can move at most in one direction."""
    lane = _GB_PER_LANE.get(generation or 0)
    return None if lane is None or not width else lane * width * 1e9


PLAIN: tuple[Reading, ...] = (
    Reading(("utilisation", "memory_busy"), utilisation),
    Reading(("memory_used",), memory),
    Reading(("energy",), energy),
    Reading(("sm_clock", "memory_clock"), clocks),
    Reading(("temperature",), temperature),
    Reading(("throttle",), throttle),
)
"""Power and what moves over links are chosen for each GPU; see `device.py`."""
