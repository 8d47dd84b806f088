"""The file of devices: the packaged one, and the user's own of the same shape."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from itertools import chain
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from servemark.harness.hardware.device import Gpu, Peak
from servemark.harness.hardware.toml_file import checked, file_text, read_toml
from servemark.harness.plan.sentences import Complaint, Where, raise_if
from servemark.harness.plan.strict import Strict

Dtype = Literal["bf16", "fp8", "int8", "fp4"]
Positive = Annotated[float, Field(gt=0, le=1e9)]
Text = Annotated[str, Field(min_length=1)]
Range = Annotated[tuple[Positive, Positive], Field(strict=False)]
_WIDEST = "bf16"
_SPARSE_OVER_DENSE = 2.0
_ROUNDING = 0.025
"""Published figures are rounded by so much at most; what is further off is the sparse figure taken for the dense."""


class PeakEntry(Strict):
    """What the matrix units reach with one dtype."""

    dense_tflops: Positive = Field(description="dense TFLOP/s (TOP/s for int8), without 2:4 sparsity")
    sparse_tflops: Positive | None = Field(default=None, description="the same with 2:4 sparsity, where published")
    accumulate: Text = Field(default="fp32", description="what products are summed in: fp32, fp16, int32")
    disputed: Range | None = Field(default=None, description="lowest and highest dense figure, where sources disagree")
    source: Text | None = Field(default=None, description="where the figure is published; without it the device's")
    retrieved: Text | None = Field(default=None, description="when it was read there; without it the device's")


class GpuEntry(Strict):
    """A device."""

    title: Text = Field(description="its name for people")
    bandwidth_gb_s: Positive = Field(description="memory bandwidth in GB/s, decimal")
    bandwidth_disputed: Range | None = Field(default=None, description="lowest and highest, where sources disagree")
    memory_gb: Positive = Field(description="memory in GB, as published")
    memory_mib: Positive | None = Field(default=None, description="memory in MiB, as the driver reports it")
    power_w: Positive | None = Field(default=None, description="power of the board in W, the highest it is sold with")
    achievable: Annotated[float, Field(gt=0, le=1)] | None = Field(
        default=None, description="share of the dense 16-bit peak that large matrix products reach"
    )
    achievable_source: Text | None = Field(default=None, description="who measured that")
    source: Text = Field(description="where the figures are published")
    retrieved: Text = Field(description="when they were read there, as 2026-11-21")
    nvml_names: Annotated[tuple[Text, ...], Field(strict=False)] = Field(
        default=(), description="product names by which it is recognised, as nvidia-smi prints them"
    )
    note: str = Field(default="", description="what must be known beside the figures")
    peaks: dict[Dtype, PeakEntry] = Field(description="peak per dtype; bf16 stands for fp16 too")

    def gpu(self, name: str) -> Gpu:
        given = self.model_dump(exclude={"peaks", "achievable_source"})
        peaks: dict[str, Peak] = {dtype: self._peak(dtype, entry) for dtype, entry in self.peaks.items()}
        return Gpu(name, peaks=peaks, achievable_source=self.achievable_source or "", **given)

    def _peak(self, dtype: str, entry: PeakEntry) -> Peak:
        given = entry.model_dump(exclude={"source", "retrieved"})
        source, retrieved = entry.source or self.source, entry.retrieved or self.retrieved
        return Peak(dtype, source=source, retrieved=retrieved, **given)


class DeviceFile(Strict):
    """Devices by their names."""

    gpus: dict[Text, GpuEntry] = Field(description="devices by the names that --gpu takes")


@cache
def packaged() -> tuple[Gpu, ...]:
    return parse(files(__package__).joinpath("devices.toml").read_text(encoding="utf-8"), "devices.toml")


def read(path: Path) -> tuple[Gpu, ...]:
    """A user's file. Raises BadInput, a line for each mistake."""
    return parse(file_text(path, "file of devices"), str(path))


def parse(text: str, label: str) -> tuple[Gpu, ...]:
    document = read_toml(text, label)
    found = tuple(entry.gpu(name) for name, entry in checked(document, DeviceFile).gpus.items())
    raise_if(chain.from_iterable(map(_complaints, found)), Where(document, {}))
    return found


def _complaints(gpu: Gpu) -> Iterator[Complaint]:
    """What a file of the right shape may still have wrong."""
    place = ("gpus", gpu.name, "peaks")
    if _WIDEST not in gpu.peaks:
        yield place, "bf16 is missing, to which dtypes without a peak fall back; add it"
    for dtype, peak in gpu.peaks.items():
        yield from (((*place, dtype), text) for text in _wrong(peak))


def _wrong(peak: Peak) -> Iterator[str]:
    dense, sparse = peak.dense_tflops, peak.sparse_tflops
    if sparse is not None and abs(sparse / dense / _SPARSE_OVER_DENSE - 1) > _ROUNDING:
        yield f"{sparse:g} is not twice {dense:g}; give the dense figure, and the sparse one or none"
    low, high = peak.disputed or (dense, dense)
    if not low <= dense <= high:
        yield f"{dense:g} is not in the disputed range, {low:g} to {high:g}"
