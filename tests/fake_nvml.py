"""libnvidia-ml.so.1 without a GPU: functions that fill the real structures of the real `pynvml`.

What is replaced is the library below pynvml, so its calls, ctypes structures, buffers and error classes are the ones
that a GPU gets. In this process `installed(Case(...))` puts it there; for a process that a test starts, `environment`
gives an environment in which `import pynvml` finds the same, and in which dlopen finds a library by NVML's name.
"""

from __future__ import annotations

import contextlib
import ctypes.util
import importlib.metadata
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

MIB = 1024 * 1024
SUCCESS, UNINITIALISED, INVALID, NOT_SUPPORTED, NO_PERMISSION = 0, 1, 2, 3, 4
NOT_FOUND, DRIVER_NOT_LOADED, FUNCTION_NOT_FOUND, GPU_IS_LOST, UNKNOWN = 6, 9, 13, 15, 999
GPM_PERCENT = {2: 80.0, 3: 40.0, 5: 30.0, 10: 62.5}
GPM_RATES = {20: 100.0, 21: 200.0, 60: 3000.0, 61: 4000.0}  # MiB/s


@dataclass(frozen=True)
class FakeGpu:
    """An H100 with steady values. `lost_after` counts readings of its utilisation."""

    uuid: str = "GPU-aaaa0000-0000-4000-8000-000000000000"
    name: str = "NVIDIA H100 80GB HBM3"
    gpm: str = "present"  # present, absent, lying (says yes, samples fail), zeros (says yes, tells only zeros), old
    lost_after: int | None = None
    missing: tuple[str, ...] = ()  # functions that answer "not supported"
    fields: dict[str, list[float]] = field(default_factory=dict)  # field id -> [NVML's value type, per second]
    gpm_values: dict[str, float] = field(default_factory=dict)
    utilisation: int = 97
    throttle: int = 0
    mig: tuple[int, ...] = ()  # ids of GPU instances
    power_mw: int = 612_000
    instant_mw: int | None = 655_000
    power_limit_mw: int = 700_000
    memory_v2: bool = True


@dataclass(frozen=True)
class Case:
    gpus: tuple[FakeGpu, ...] = (FakeGpu(),)
    init: int = SUCCESS
    hang_after: int | None = None  # readings of utilisation, over all GPUs
    die_after: int | None = None


class FakeLib:
    """Has a function of NVML where pynvml looks it up by name; other names it does not know, as an old driver."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.calls: dict[str, int] = {}
        self.freed = 0
        self._handles: dict[int, tuple[int, int | None]] = {}
        self._kept: list[Any] = []
        self._samples: dict[int, float] = {}
        self._read = [0] * len(case.gpus)

    def __getattr__(self, name: str) -> Callable[..., int]:
        body = getattr(FakeLib, f"_{name.removeprefix('nvml')}", None)
        if not name.startswith("nvml") or body is None:
            raise AttributeError(name)

        def call(*arguments: Any) -> int:
            self.calls[name] = self.calls.get(name, 0) + 1
            device = self._device(arguments[0]) if arguments else None
            if device is not None:
                gpu = self.case.gpus[device[0]]
                if gpu.lost_after is not None and self._read[device[0]] >= gpu.lost_after:
                    return GPU_IS_LOST
                if name in gpu.missing:
                    return NOT_SUPPORTED
            return int(body(self, *arguments) or SUCCESS)

        return call

    def _device(self, argument: Any) -> tuple[int, int | None] | None:
        key = _address(argument)
        return None if key is None else self._handles.get(key)

    def _gpu(self, handle: Any) -> FakeGpu:
        found = self._device(handle)
        assert found is not None
        return self.case.gpus[found[0]]

    def _give(self, out: Any, device: tuple[int, int | None]) -> None:
        import pynvml

        body = ctypes.create_string_buffer(8)
        self._kept.append(body)
        self._handles[ctypes.addressof(body)] = device
        out._obj.contents = ctypes.cast(body, pynvml.c_nvmlDevice_t).contents

    # The system

    def _InitWithFlags(self, flags: Any) -> int:
        return self.case.init

    def _Shutdown(self) -> None: ...

    def _SystemGetDriverVersion(self, out: Any, size: Any) -> None:
        out.value = b"570.86.15"

    def _SystemGetCudaDriverVersion(self, out: Any) -> None:
        out._obj.value = 12080

    def _DeviceGetCount_v2(self, out: Any) -> None:
        out._obj.value = len(self.case.gpus)

    # What a GPU is

    def _DeviceGetHandleByIndex_v2(self, index: Any, out: Any) -> int:
        if index.value >= len(self.case.gpus):
            return INVALID
        self._give(out, (index.value, None))
        return SUCCESS

    def _DeviceGetUUID(self, handle: Any, out: Any, size: Any) -> None:
        index, instance = self._device(handle) or (0, None)
        uuid = self.case.gpus[index].uuid
        out.value = (uuid if instance is None else f"MIG-{instance}{uuid[4:]}").encode()

    def _DeviceGetName(self, handle: Any, out: Any, size: Any) -> None:
        out.value = self._gpu(handle).name.encode()

    def _DeviceGetMaxClockInfo(self, handle: Any, kind: Any, out: Any) -> None:
        out._obj.value = 2619 if _value(kind) == 2 else 1980

    def _DeviceGetMemoryBusWidth(self, handle: Any, out: Any) -> None:
        out._obj.value = 5120

    def _DeviceGetEnforcedPowerLimit(self, handle: Any, out: Any) -> None:
        out._obj.value = self._gpu(handle).power_limit_mw

    def _DeviceGetPowerManagementDefaultLimit(self, handle: Any, out: Any) -> None:
        out._obj.value = 700_000

    def _DeviceGetMaxPcieLinkGeneration(self, handle: Any, out: Any) -> None:
        out._obj.value = 4

    _DeviceGetCurrPcieLinkGeneration = _DeviceGetMaxPcieLinkGeneration

    def _DeviceGetMaxPcieLinkWidth(self, handle: Any, out: Any) -> None:
        out._obj.value = 8

    _DeviceGetCurrPcieLinkWidth = _DeviceGetMaxPcieLinkWidth

    # MIG

    def _DeviceGetMigMode(self, handle: Any, now: Any, pending: Any) -> None:
        now._obj.value = pending._obj.value = int(bool(self._gpu(handle).mig))

    def _DeviceGetMaxMigDeviceCount(self, handle: Any, out: Any) -> None:
        out._obj.value = 7

    def _DeviceGetMigDeviceHandleByIndex(self, handle: Any, place: Any, out: Any) -> int:
        index, _ = self._device(handle) or (0, None)
        instances = self.case.gpus[index].mig
        if place.value >= len(instances):
            return NOT_FOUND
        self._give(out, (index, instances[place.value]))
        return SUCCESS

    def _DeviceGetGpuInstanceId(self, handle: Any, out: Any) -> None:
        out._obj.value = (self._device(handle) or (0, 0))[1]

    # Readings

    def _DeviceGetUtilizationRates(self, handle: Any, out: Any) -> int:
        index, instance = self._device(handle) or (0, None)
        self._read[index] += 1
        total = sum(self._read)
        if self.case.die_after is not None and total > self.case.die_after:
            os._exit(7)
        if self.case.hang_after is not None and total > self.case.hang_after:
            time.sleep(3600)
        gpu = self.case.gpus[index]
        if gpu.mig or instance is not None:
            return NOT_SUPPORTED
        out._obj.gpu, out._obj.memory = gpu.utilisation, 45
        return SUCCESS

    def _DeviceGetMemoryInfo(self, handle: Any, out: Any) -> None:
        out._obj.total, out._obj.used = 81_559 * MIB, 71_000 * MIB

    def _DeviceGetMemoryInfo_v2(self, handle: Any, out: Any) -> int:
        if not self._gpu(handle).memory_v2:
            return FUNCTION_NOT_FOUND
        out._obj.total, out._obj.reserved, out._obj.used = 81_559 * MIB, 600 * MIB, 70_000 * MIB
        return SUCCESS

    def _DeviceGetPowerUsage(self, handle: Any, out: Any) -> None:
        out._obj.value = self._gpu(handle).power_mw

    def _DeviceGetTotalEnergyConsumption(self, handle: Any, out: Any) -> None:
        out._obj.value = round(time.monotonic() * self._gpu(handle).power_mw)

    def _DeviceGetClockInfo(self, handle: Any, kind: Any, out: Any) -> None:
        out._obj.value = 2619 if _value(kind) == 2 else 1755

    def _DeviceGetTemperature(self, handle: Any, sensor: Any, out: Any) -> None:
        out._obj.value = 64

    def _DeviceGetCurrentClocksEventReasons(self, handle: Any, out: Any) -> None:
        out._obj.value = self._gpu(handle).throttle

    def _DeviceGetFieldValues(self, handle: Any, count: Any, out: Any) -> None:
        gpu = self._gpu(handle)
        for place in range(count.value):
            told = out._obj[place]
            told.nvmlReturn = SUCCESS
            if told.fieldId == 186 and gpu.instant_mw is not None:
                told.valueType, told.value.uiVal = 1, gpu.instant_mw
            elif str(told.fieldId) in gpu.fields:
                kind, per_s = gpu.fields[str(told.fieldId)]
                # Of NVLink a scope is one link of 18, and only the highest number is all of them.
                share = 1 / 18 if told.fieldId in (138, 139) and told.scopeId != 0xFFFFFFFF else 1
                self._tell(told, int(kind), round(time.monotonic() * per_s * share))
            else:
                told.nvmlReturn = NOT_SUPPORTED

    def _tell(self, told: Any, kind: int, value: int) -> None:
        told.valueType = kind
        if kind == 1:
            told.value.uiVal = value & 0xFFFFFFFF
        else:
            told.value.ullVal = value

    # GPM

    def _GpmQueryDeviceSupport(self, handle: Any, out: Any) -> int:
        gpu = self._gpu(handle)
        if gpu.gpm == "old":
            return FUNCTION_NOT_FOUND
        out._obj.isSupportedDevice = int(gpu.gpm != "absent")
        return SUCCESS

    def _GpmSampleAlloc(self, out: Any) -> None:
        import pynvml

        body = ctypes.create_string_buffer(8)
        self._kept.append(body)
        self._samples[ctypes.addressof(body)] = 0.0
        out._obj.contents = ctypes.cast(body, pynvml.c_nvmlGpmSample_t).contents

    def _GpmSampleFree(self, sample: Any) -> None:
        self.freed += 1

    def _GpmSampleGet(self, handle: Any, sample: Any) -> int:
        gpu = self._gpu(handle)
        if gpu.gpm in ("lying", "refused"):
            return NO_PERMISSION if gpu.gpm == "refused" else UNKNOWN
        if gpu.mig:
            return NOT_SUPPORTED
        self._samples[_address(sample) or 0] = time.monotonic()
        return SUCCESS

    def _GpmMigSampleGet(self, handle: Any, instance: Any, sample: Any) -> int:
        if _value(instance) not in self._gpu(handle).mig:
            return INVALID
        self._samples[_address(sample) or 0] = time.monotonic()
        return SUCCESS

    def _GpmMetricsGet(self, out: Any) -> int:
        asked = out._obj
        first, second = (self._samples[_address(s) or 0] for s in (asked.sample1, asked.sample2))
        if asked.version != 1 or second - first < 0.1:
            return INVALID
        gpu = next(gpu for gpu in self.case.gpus if gpu.gpm in ("present", "zeros"))
        for metric in asked.metrics[: asked.numMetrics]:
            value = {**GPM_PERCENT, **GPM_RATES, **{int(k): v for k, v in gpu.gpm_values.items()}}.get(metric.metricId)
            metric.nvmlReturn = NOT_SUPPORTED if value is None or value < -1 else SUCCESS
            metric.value = 0.0 if gpu.gpm == "zeros" else value or 0.0
        return SUCCESS


def _value(argument: Any) -> int:
    return int(getattr(argument, "value", argument))


def _address(argument: Any) -> int | None:
    """Where a handle points; None for all that is none."""
    try:
        return ctypes.addressof(argument.contents)
    except (AttributeError, ValueError):
        return None


@contextlib.contextmanager
def installed(case: Case) -> Iterator[FakeLib]:
    """pynvml speaks to the fake meanwhile."""
    import pynvml

    library = FakeLib(case)
    pynvml._nvmlGetFunctionPointer_cache.clear()
    pynvml.nvmlLib = library
    try:
        yield library
    finally:
        pynvml.nvmlLib = None
        pynvml._nvmlGetFunctionPointer_cache.clear()


def environment(folder: Path, case: Case) -> dict[str, str]:
    """For a process of its own: a `pynvml` that is the real one over the fake, and a library that dlopen finds."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "case.json").write_text(json.dumps(asdict(case)))
    (folder / "pynvml.py").write_text("from fake_nvml import become\n\nbecome(globals())\n")
    link = folder / "libnvidia-ml.so.1"
    if not link.exists():
        link.symlink_to(_any_library())
    paths = [str(folder), str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    loads = [str(folder), os.environ.get("LD_LIBRARY_PATH", "")]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "LD_LIBRARY_PATH": os.pathsep.join(filter(None, loads)),
        "FAKE_NVML": str(folder / "case.json"),
    }


def _any_library() -> str:
    """A file that can be loaded: nothing of it is called."""
    loaded = Path("/proc/self/maps").read_text().split()
    return next(word for word in loaded if "/libm.so" in word or "/libm-" in word or "/libc.so" in word)


def become(module: dict[str, Any]) -> None:
    """Makes the module that asks for it the real pynvml, over the fake library that FAKE_NVML names."""
    real = importlib.metadata.distribution("nvidia-ml-py").locate_file("pynvml.py")
    source = Path(str(real)).read_text()
    exec(compile(source, str(real), "exec"), module)
    module["nvmlLib"] = FakeLib(case_of(json.loads(Path(os.environ["FAKE_NVML"]).read_text())))


def case_of(told: dict[str, Any]) -> Case:
    gpus = [FakeGpu(**{**gpu, "missing": tuple(gpu["missing"]), "mig": tuple(gpu["mig"])}) for gpu in told["gpus"]]
    return Case(**{**told, "gpus": tuple(gpus)})


if sys.platform != "linux":  # pragma: no cover
    raise ImportError("the fake stands in for Linux's library")
