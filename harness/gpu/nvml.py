"""Reads this machine's GPUs through NVML: used by the sampler's process and by the exporter."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from servemark.harness.clock import now_ns
from servemark.harness.gpu import library, opening
from servemark.harness.gpu.device import Device
from servemark.harness.gpu.fields import GPU_FIELDS
from servemark.harness.gpu.gpm import LEAST_GAP_S
from servemark.harness.types import GpuSample


class Reader:
    """The GPUs `chosen` by index or UUID (also its beginning), or all. Nothing here raises for a GPU's sake.

    A field that is a rate or comes from GPM needs a reading before it, so the first one lacks it. GPM is read at most
    every 0.2 s: readings that come sooner lack its fields.
    """

    def __init__(self, period_s: float, chosen: Sequence[str] = ()) -> None:
        self.period_s = period_s
        self.began_ns = now_ns()
        self.devices: list[Device] = []
        self._notes: list[str] = []
        self._samples = 0
        self._nvml: Any = None
        try:
            self._nvml = library.opened()
            self._open(chosen)
        except library.Unread as error:
            self._notes.append(str(error))

    def _open(self, chosen: Sequence[str]) -> None:
        nvml, shared = self._nvml, _shared(self._nvml)
        found: list[Device] = []
        for index in range(library.asked(nvml, "nvmlDeviceGetCount") or 0):
            try:
                handle = nvml.nvmlDeviceGetHandleByIndex(index)
                uuid = nvml.nvmlDeviceGetUUID(handle)
                found += opening.opened(nvml, handle, index, uuid, shared, now_ns())
            except nvml.NVMLError as error:
                self._notes.append(f"GPU {index} cannot be read ({library.said(error)})")
        self.devices = list(self._chosen(found, chosen))
        for each in found:
            if each not in self.devices:
                each.end()
        if not found and not self._notes:
            self._notes.append("the NVIDIA driver is here and finds no GPU")

    def _chosen(self, found: Sequence[Device], chosen: Sequence[str]) -> Iterator[Device]:
        """In NVML's order; of a GPU under MIG all its instances come with it."""
        if not chosen:
            yield from found
            return
        wanted = {id(each) for name in chosen for each in self._named(found, name)}
        yield from (each for each in found if id(each) in wanted)

    def _named(self, found: Sequence[Device], name: str) -> list[Device]:
        whole = name.strip().lower()
        exact = [d for d in found if whole in (str(d.index), d.uuid.lower())]
        named = exact or [d for d in found if len(whole) > 4 and d.uuid.lower().startswith(whole)]
        if not named or (not exact and len(named) > 1):
            why = "several have that beginning" if named else "there is none"
            there = ", ".join(f"{d.index} ({d.uuid})" for d in found) or "no GPU"
            self._notes.append(f"GPU {name} was asked for and {why}: there is {there}")
            return []
        return named + [d for d in found if d.part_of is not None and d.part_of == named[0].uuid]

    def read(self) -> list[GpuSample]:
        """A sample of each GPU that is not lost, stamped on CLOCK_MONOTONIC."""
        samples = [sample for each in self.devices if (sample := each.read(now_ns())) is not None]
        self._samples += len(samples)
        return samples

    @property
    def alive(self) -> bool:
        """There is a GPU that can still be read."""
        return any(each.lost_ns is None for each in self.devices)

    def facts(self) -> dict[str, Any]:
        """What is read, on what, and what is missing and why; it grows with the readings."""
        gpus = [each.facts(self.began_ns) for each in self.devices]
        return {
            "source": "nvml",
            "period_s": self.period_s,
            "gpm_period_s": max(self.period_s, LEAST_GAP_S),
            "samples": self._samples,
            "gpus": gpus,
            "notes": [*self._notes, *_lost(self.devices, self.began_ns), *_mig(self.devices)],
            "missing": _missing(self.devices),
        }

    def close(self) -> None:
        for each in self.devices:
            each.end()
        if self._nvml is not None:
            library.asked(self._nvml, "nvmlShutdown")
            self._nvml = None
            self.devices = []


def _shared(nvml: Any) -> dict[str, Any]:
    cuda = library.asked(nvml, "nvmlSystemGetCudaDriverVersion")
    return {
        "driver": library.asked(nvml, "nvmlSystemGetDriverVersion"),
        "cuda": None if cuda is None else f"{cuda // 1000}.{cuda % 1000 // 10}",
    }


def _lost(devices: Iterable[Device], began_ns: int) -> Iterator[str]:
    for each in devices:
        if each.lost_ns is not None:
            after_s = (each.lost_ns - began_ns) / 1e9
            yield f"{each.label} was lost {after_s:.1f} s after its sampling began ({each.lost_why})"


def _mig(devices: Iterable[Device]) -> Iterator[str]:
    for each in devices:
        if each.split:
            yield f"{each.label} is split by MIG: memory and GPM are of its instances, power and clocks of the whole"


def _missing(devices: Sequence[Device]) -> dict[str, str]:
    """Field -> why; by GPU where they differ."""
    lacks = {each.label: each.lacks() for each in devices}
    found = {}
    for name in GPU_FIELDS:
        whys = {label: missing[name] for label, missing in lacks.items() if name in missing}
        if whys and len(whys) == len(devices) and len(set(whys.values())) == 1:
            found[name] = next(iter(whys.values()))
        elif whys:
            alike = {why: [label for label in whys if whys[label] == why] for why in whys.values()}
            found[name] = "; ".join(f"{', '.join(labels)}: {why}" for why, labels in alike.items())
    return found
