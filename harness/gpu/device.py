"""One GPU, or one MIG instance of one, and what can be read of it: tried once, then read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from servemark.harness.clock import SECOND
from servemark.harness.gpu import readings
from servemark.harness.gpu.gpm import METRICS, Gpm
from servemark.harness.gpu.library import gone, said
from servemark.harness.gpu.readings import Rate, Reading
from servemark.harness.types import GpuSample


class Device:
    """`label` is what it is called in sentences; `described` what there is to say of it.

    A reading that fails when the GPU is opened is not tried again: `missing` says why. Later failures cost a value,
    and a GPU that is gone is `lost` from then on.
    """

    def __init__(self, nvml: Any, handle: Any, uuid: str, label: str, described: dict[str, Any], gpm: Gpm) -> None:
        self.uuid = uuid
        self.label = label
        self.missing: dict[str, str] = {}
        self.lost_ns: int | None = None
        self.lost_why = ""
        self._nvml = nvml
        self._handle = handle
        self._described = described
        self._gpm = gpm
        self._plan: list[Reading] = []

    @property
    def index(self) -> int | str:
        """NVML's; of a MIG instance its GPU's and its place there, as 0:2."""
        found: int | str = self._described["index"]
        return found

    @property
    def part_of(self) -> str | None:
        """The UUID of the GPU whose MIG instance it is."""
        return self._described.get("part_of")

    @property
    def split(self) -> bool:
        """A GPU under MIG, not one of its instances."""
        return bool(self._described["mig"]) and self.part_of is None

    def allow(self, plan: Sequence[Reading]) -> None:
        """Tries each reading once."""
        for reading in plan:
            self._try(reading)

    def refuse(self, why: str, *names: str) -> None:
        self.missing |= dict.fromkeys(names, why)

    def power(self) -> None:
        """The instantaneous one where there is one: a mean over a second is of another time than its sample."""
        if self._try(Reading(("power",), readings.power_instant)):
            self._described["power_reads"] = "instant"
        elif self._try(Reading(("power",), readings.power_average)):
            self._described["power_reads"] = "as NVML averages it, over 1 s on most GPUs from Ampere on"

    def _try(self, reading: Reading) -> bool:
        try:
            reading.read(self._nvml, self._handle)
        except (self._nvml.NVMLError, AttributeError) as error:  # the latter: an nvidia-ml-py older than the call
            why = said(error) if isinstance(error, self._nvml.NVMLError) else "this nvidia-ml-py is too old"
            self.refuse(f"NVML does not tell it of this GPU ({why})", *reading.names)
            return False
        for name in reading.names:
            self.missing.pop(name, None)
        self._plan.append(reading)
        return True

    def read(self, at_ns: int) -> GpuSample | None:
        """None where the GPU is lost."""
        if self.lost_ns is not None:
            return None
        try:
            values = self._values(at_ns)
        except self._nvml.NVMLError as error:
            self.lost_ns, self.lost_why = at_ns, said(error)
            return None
        return GpuSample(at_ns, self.uuid, values)

    def _values(self, at_ns: int) -> dict[str, float]:
        """Raises NVMLError where the GPU is gone, or nothing at all can be read of it any more."""
        counted = self._gpm.read(at_ns)  # first of all: it is of the very time of the stamp
        values: dict[str, float] = {}
        failure: Any = None
        for reading in self._plan:
            if self._gpm.works and set(reading.names) <= METRICS.keys() - self._gpm.missing.keys():
                continue
            try:
                values |= reading.read(self._nvml, self._handle)
            except self._nvml.NVMLError as error:
                if gone(error):
                    raise
                failure = error
        values |= self._gpm.believed(counted, values.get("utilisation", 0.0))
        if failure is not None and not values:
            raise failure
        return values

    def lacks(self) -> dict[str, str]:
        """Field -> why it is not told."""
        rates = [reading.read for reading in self._plan if isinstance(reading.read, Rate)]
        found = self.missing | {rate.name: rate.why for rate in rates if rate.why}
        for name in METRICS:
            why = self._gpm.why if self._gpm.works is False else self._gpm.missing.get(name, "")
            counted = any(rate.name == name for rate in rates) and name not in found
            if counted or (self._gpm.works and not why):
                found.pop(name, None)
            elif why:
                found[name] = f"{why}; without it, {found[name]}" if name in found else why
        return found

    def facts(self, began_ns: int) -> dict[str, Any]:
        lost = None
        if self.lost_ns is not None:
            lost = {"at_ns": self.lost_ns, "after_s": (self.lost_ns - began_ns) / SECOND, "why": self.lost_why}
        return {"gpu": self.uuid, **self._described, "gpm": self._gpm.works, "lost": lost}

    def end(self) -> None:
        self._gpm.end()
