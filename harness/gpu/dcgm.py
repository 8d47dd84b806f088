"""The text of NVIDIA's dcgm-exporter -> our fields.

Names and units are those of its counters files: up to 4.8 the old ones (percent, MHz, mJ, MiB), from 4.9 on DCGM 4.7's
(shares, Hz, J, bytes). A name never changed its unit, but for DCGM_FI_DEV_GPU_UTIL_RATIO, which for some releases was
another word for the percentage; a share above 1 is therefore not believed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from servemark.harness.gpu.answers import MOST_GPUS, Answer, Exporter, Reading, named
from servemark.harness.gpu.fields import GPU_FIELDS
from servemark.harness.server.prometheus import Metrics, Series

PREFIX = "DCGM_FI_"
_MIB = 1024.0 * 1024.0
_MOST_SHARE = 1.05
_MOST_BYTES_PER_S = 4e12
"""More than any link of a GPU moves: a counter of all bytes ever, where a rate was meant."""
# DCGM's words for "not told": of whole numbers from 2**63 - 16 on, of others from 2**47 on, some reasons each.
_BLANK_INTEGER = 2.0**63 - 1024
_BLANKS = frozenset(float(first + reason) for first in (2**47, 0x7FFFFFF0) for reason in range(5))
_BOARD = frozenset(GPU_FIELDS) - {"memory_used", "dram_active", "sm_active", "sm_occupancy", "tensor_active"}
"""Told of the whole GPU even where the series names one of its MIG instances."""
_SPLIT = "is split by MIG: memory and profiling metrics are of its instances, power and clocks of the whole"


@dataclass(frozen=True, slots=True)
class Counter:
    """One of DCGM's fields and what makes its unit ours; above `most` it is not what we take it for."""

    name: str
    scale: float = 1.0
    most: float = float("inf")


def _share(name: str, scale: float = 1.0) -> Counter:
    return Counter(PREFIX + name, scale, _MOST_SHARE)


def _rate(name: str) -> Counter:
    # Counters files call it a counter at times, and it is a rate all the same.
    return Counter(PREFIX + name, 1.0, _MOST_BYTES_PER_S)


def _level(name: str, scale: float = 1.0) -> Counter:
    return Counter(PREFIX + name, scale)


COUNTERS: Mapping[str, tuple[Counter, ...]] = {
    "utilisation": (_share("DEV_GPU_UTIL", 0.01), _share("DEV_GPU_UTIL_RATIO")),
    "memory_busy": (_share("DEV_MEM_COPY_UTIL", 0.01), _share("DEV_MEMORY_UTIL_RATIO")),
    "memory_used": (_level("DEV_FB_USED", _MIB), _level("DEV_FB_USED_BYTES")),
    "power": (_level("DEV_POWER_USAGE"), _level("DEV_BOARD_POWER_WATTS")),
    "energy": (_level("DEV_TOTAL_ENERGY_CONSUMPTION", 1e-3), _level("DEV_GPU_ENERGY_JOULES_TOTAL")),
    "sm_clock": (_level("DEV_SM_CLOCK"), _level("DEV_SM_CLOCK_HERTZ", 1e-6)),
    "memory_clock": (_level("DEV_MEM_CLOCK"), _level("DEV_MEMORY_CLOCK_HERTZ", 1e-6)),
    "temperature": (_level("DEV_GPU_TEMP"), _level("DEV_GPU_TEMP_CELSIUS")),
    "throttle": (_level("DEV_CLOCKS_EVENT_REASONS"), _level("DEV_CLOCK_THROTTLE_REASONS")),
    "pcie_rx": (_rate("PROF_PCIE_RX_BYTES"),),
    "pcie_tx": (_rate("PROF_PCIE_TX_BYTES"),),
    "nvlink_rx": (_rate("PROF_NVLINK_RX_BYTES"),),
    "nvlink_tx": (_rate("PROF_NVLINK_TX_BYTES"),),
    "dram_active": (_share("PROF_DRAM_ACTIVE"), _share("PROF_DRAM_UTIL_RATIO")),
    "sm_active": (_share("PROF_SM_ACTIVE"), _share("PROF_SM_UTIL_RATIO")),
    "sm_occupancy": (_share("PROF_SM_OCCUPANCY"), _share("PROF_SM_OCCUPANCY_RATIO")),
    "tensor_active": (_share("PROF_PIPE_TENSOR_ACTIVE"), _share("PROF_TENSOR_UTIL_RATIO")),
}
"""Our fields, each by the first that tells it. DEV_PCIE_TX_THROUGHPUT and RX are left: nobody states their unit."""

# What adds up to a GPU's memory, where no counter tells it.
_MEMORY = (("DEV_FB_CAPACITY_BYTES", 1.0), ("DEV_FB_TOTAL", _MIB))
_PARTS = (("DEV_FB_USED", "DEV_FB_FREE", "DEV_FB_RESERVED"), _MIB)
_PARTS_BYTES = (("DEV_FB_USED_BYTES", "DEV_FB_FREE_BYTES", "DEV_FB_RESERVED_BYTES"), 1.0)


def is_dcgm(metrics: Metrics) -> bool:
    return any(name.startswith(PREFIX) for name in metrics.series)


def read(metrics: Metrics) -> Answer:
    """A reading of each GPU and MIG instance. ValueError where it tells nothing of a GPU that we know."""
    values: dict[str, dict[str, float]] = {}
    for field, counters in COUNTERS.items():
        for counter in counters:
            for series in metrics.series.get(counter.name, ()):
                value = _value(series, counter)
                gpu = _gpu(series, field in _BOARD)
                if value is not None and gpu is not None:
                    values.setdefault(gpu, {}).setdefault(field, value)
    if not values:
        raise ValueError("it tells nothing of a GPU that is known here: see its counters file (-f)")
    if len(values) > MOST_GPUS:
        raise ValueError(f"it tells of {len(values)} GPUs; more than {MOST_GPUS} cannot be")
    readings = tuple(Reading(gpu, fields) for gpu, fields in values.items())
    gpus = _gpus(metrics, values)
    split = [f"GPU {each['index']} {_SPLIT}" for each in gpus if each["mig"] and "part_of" not in each]
    return Answer(readings, facts={"gpus": gpus, "missing": _missing(values), "notes": split})


def _value(series: Series, counter: Counter) -> float | None:
    """None for a blank, for what is no number, and for what cannot be."""
    if not 0 <= series.value < _BLANK_INTEGER or series.value in _BLANKS:
        return None
    value = series.value * counter.scale
    return value if value <= counter.most else None


def _uuid(labels: Mapping[str, str]) -> str | None:
    """None for what is no GPU: a switch, a link, a CPU."""
    if not labels.keys().isdisjoint({"nvlink", "nvswitch", "cpu", "cpucore"}):
        return None
    uuid = labels.get("UUID") or labels.get("uuid")
    if uuid is None and "gpu" in labels:
        uuid = f"{_host(labels) or ''}:{labels['gpu']}"
    return uuid and named(uuid)


def _host(labels: Mapping[str, str]) -> str | None:
    return labels.get("Hostname") or labels.get("hostname")


def _gpu(series: Series, whole: bool) -> str | None:
    """The GPU's UUID; of a MIG instance that and its number, as instances have no UUID here."""
    uuid, instance = _uuid(series.labels), series.labels.get("GPU_I_ID")
    return uuid if uuid is None or whole or not instance else f"{uuid}/{named(instance)}"


def _gpus(metrics: Metrics, told: Iterable[str]) -> list[dict[str, Any]]:
    described: dict[str, dict[str, Any]] = {}
    split = {gpu.rpartition("/")[0] for gpu in told if "/" in gpu}
    for series in _known(metrics):
        for whole in (True, False):
            gpu = _gpu(series, whole)
            if gpu is not None and gpu in told and gpu not in described:
                described[gpu] = _described(series.labels, gpu, gpu in split, metrics)
    return list(described.values())


def _known(metrics: Metrics) -> Iterator[Series]:
    for counters in COUNTERS.values():
        for counter in counters:
            yield from metrics.series.get(counter.name, ())


def _described(labels: Mapping[str, str], gpu: str, split: bool, metrics: Metrics) -> dict[str, Any]:
    uuid, index = _uuid(labels), labels.get("gpu", "")
    of_instance = gpu != uuid
    found: dict[str, Any] = {
        "gpu": gpu,
        "index": f"{named(index)}/{named(labels['GPU_I_ID'])}" if of_instance else _number(index),
        "name": named(labels.get("modelName", "")) or None,
        "host": named(_host(labels) or "") or None,
        "memory_bytes": None if split else _memory(metrics, gpu),
        "driver": named(labels.get("DCGM_FI_DRIVER_VERSION") or labels.get("DCGM_FI_SYSTEM_DRIVER_VERSION", ""))
        or None,
        "mig": split or of_instance,
    }
    if of_instance:
        found |= {"part_of": uuid, "profile": named(labels.get("GPU_I_PROFILE", ""))}
    return found


def _number(index: str) -> int | str:
    return int(index) if index.isascii() and index.isdigit() and len(index) < 6 else named(index)


def _memory(metrics: Metrics, gpu: str) -> int | None:
    for name, scale in _MEMORY:
        if (whole := _of_gpu(metrics, name, gpu)) is not None:
            return round(whole * scale)
    for names, scale in (_PARTS, _PARTS_BYTES):
        used, free, reserved = (_of_gpu(metrics, name, gpu) for name in names)
        if used is not None and free is not None:
            return round((used + free + (reserved or 0.0)) * scale)
    return None


def _of_gpu(metrics: Metrics, name: str, gpu: str) -> float | None:
    counter = Counter(PREFIX + name)
    of_it = (_value(each, counter) for each in metrics.series.get(counter.name, ()) if _gpu(each, False) == gpu)
    return next((value for value in of_it if value is not None), None)


def _missing(values: Mapping[str, Mapping[str, float]]) -> dict[str, str]:
    """Field -> which counter is to be switched on."""
    told = {field for fields in values.values() for field in fields}
    return {field: _why(counters[0].name) for field, counters in COUNTERS.items() if field not in told}


def _why(name: str) -> str:
    profiling = ", and profiling takes a data center GPU and SYS_ADMIN" if "_PROF_" in name else ""
    return f"this dcgm-exporter does not tell it: {name} has to be in its counters file (-f){profiling}"


DCGM = Exporter("dcgm", "dcgm-exporter", is_dcgm, read, slowest_s=1.0)
