"""Finds GPUs and their MIG instances, with what there is to say of each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from servemark.harness.gpu import readings
from servemark.harness.gpu.device import Device
from servemark.harness.gpu.gpm import Gpm
from servemark.harness.gpu.library import asked
from servemark.harness.gpu.readings import Reading

_NO_MIG = "MIG is on, and NVML tells this of a whole GPU only without it"
_OF_INSTANCE = "NVML tells this of the whole GPU, not of a MIG instance"


def opened(nvml: Any, handle: Any, index: int, uuid: str, shared: dict[str, Any], at_ns: int) -> Iterator[Device]:
    """The GPU, and behind it its MIG instances. Raises NVMLError where it cannot be spoken to."""
    mig = asked(nvml, "nvmlDeviceGetMigMode", handle)
    split = bool(mig and mig[0] == nvml.NVML_DEVICE_MIG_ENABLE)
    described = _described(nvml, handle, index, split) | shared
    gpm = Gpm(nvml, lambda sample: nvml.nvmlGpmSampleGet(handle, sample))
    device = Device(nvml, handle, uuid, f"GPU {index}", described, gpm)
    if split:
        gpm.give_up("MIG is on: GPM is of its instances")
        device.allow(readings.PLAIN[1:])
        device.refuse(_NO_MIG, *readings.PLAIN[0].names)
    else:
        gpm.begin(lambda: nvml.nvmlGpmQueryDeviceSupport(handle), at_ns)
        device.allow(readings.PLAIN)
    device.power()
    device.allow(_links(nvml, handle))
    yield device
    if split:
        yield from _instances(nvml, handle, index, described, at_ns)


def _links(nvml: Any, handle: Any) -> tuple[Reading, ...]:
    generation = asked(nvml, "nvmlDeviceGetMaxPcieLinkGeneration", handle)
    width = asked(nvml, "nvmlDeviceGetMaxPcieLinkWidth", handle)
    return readings.nvlink(nvml) + readings.pcie(nvml, readings.pcie_bytes_per_s(generation, width))


def _instances(nvml: Any, parent: Any, index: int, described: dict[str, Any], at_ns: int) -> Iterator[Device]:
    for place in range(asked(nvml, "nvmlDeviceGetMaxMigDeviceCount", parent) or 0):
        handle = asked(nvml, "nvmlDeviceGetMigDeviceHandleByIndex", parent, place)
        uuid = handle and asked(nvml, "nvmlDeviceGetUUID", handle)
        if not uuid:
            continue  # a place where no instance is
        number = asked(nvml, "nvmlDeviceGetGpuInstanceId", handle)
        yield _instance(nvml, parent, handle, uuid, f"{index}:{place}", number, described, at_ns)


def _instance(
    nvml: Any, parent: Any, handle: Any, uuid: str, index: str, number: int | None, whole: dict[str, Any], at_ns: int
) -> Device:
    described = {key: whole[key] for key in ("driver", "cuda")} | {
        "index": index,
        "name": asked(nvml, "nvmlDeviceGetName", handle) or whole["name"],
        "memory_bytes": _memory_bytes(nvml, handle),
        "mig": True,
        "part_of": asked(nvml, "nvmlDeviceGetUUID", parent),
    }
    gpm = Gpm(nvml, lambda sample: nvml.nvmlGpmMigSampleGet(parent, number, sample))
    if number is None:
        gpm.give_up("NVML does not say which instance this is")
    else:
        gpm.begin(lambda: nvml.nvmlGpmQueryDeviceSupport(parent), at_ns)
    device = Device(nvml, handle, uuid, f"MIG instance {index}", described, gpm)
    device.allow((readings.PLAIN[1],))
    others = [name for reading in (readings.PLAIN[0], *readings.PLAIN[2:]) for name in reading.names]
    device.refuse(_OF_INSTANCE, "power", *others)
    return device


def _memory_bytes(nvml: Any, handle: Any) -> int | None:
    found = asked(nvml, "nvmlDeviceGetMemoryInfo", handle)
    return None if found is None else int(found.total)


def _described(nvml: Any, handle: Any, index: int, split: bool) -> dict[str, Any]:
    """What run.json says of a GPU; None for what NVML does not know of it."""

    def ask(name: str, *arguments: Any, scale: float = 1) -> Any:
        found = asked(nvml, name, handle, *arguments)
        return found if found is None or scale == 1 else found * scale

    memory_mhz, bits = ask("nvmlDeviceGetMaxClockInfo", nvml.NVML_CLOCK_MEM), ask("nvmlDeviceGetMemoryBusWidth")
    return {
        "index": index,
        "name": ask("nvmlDeviceGetName"),
        "memory_bytes": _memory_bytes(nvml, handle),
        "mig": split,
        "power_limit_w": ask("nvmlDeviceGetEnforcedPowerLimit", scale=1e-3),
        "default_power_limit_w": ask("nvmlDeviceGetPowerManagementDefaultLimit", scale=1e-3),
        # As NVML's own figures give it, two transfers a clock; a little above what is published.
        "peak_bytes_per_s": memory_mhz * 1e6 * 2 * bits / 8 if memory_mhz and bits else None,
        "max_sm_clock_mhz": ask("nvmlDeviceGetMaxClockInfo", nvml.NVML_CLOCK_SM),
        "max_memory_clock_mhz": memory_mhz,
        "pcie": {
            "generation": ask("nvmlDeviceGetCurrPcieLinkGeneration"),
            "width": ask("nvmlDeviceGetCurrPcieLinkWidth"),
            "max_generation": ask("nvmlDeviceGetMaxPcieLinkGeneration"),
            "max_width": ask("nvmlDeviceGetMaxPcieLinkWidth"),
        },
    }
