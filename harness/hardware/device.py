"""A kind of accelerator: its published peaks, per dtype and dense, its bandwidth, memory and power."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

TERA = 1e12
GIGA = 1e9
MEBI = 1 << 20

WIDER = {"fp4": "fp8", "fp8": "bf16", "int8": "bf16", "fp16": "bf16"}
"""Where numbers of a dtype cannot be multiplied they are widened first: weights of 8 bit on an A100 run at 16."""


@dataclass(frozen=True, slots=True)
class Peak:
    """Of the matrix units, at boost clocks. `bf16` stands for fp16 too, which has the same peak where both exist.

    `sparse_tflops` is with 2:4 sparsity, which no served model has: it is kept only to tell the two apart.
    `disputed` are the lowest and the highest figure where sources disagree.
    """

    dtype: str
    dense_tflops: float
    sparse_tflops: float | None = None
    accumulate: str = "fp32"
    disputed: tuple[float, float] | None = None
    source: str = ""
    retrieved: str = ""


@dataclass(frozen=True, slots=True)
class Gpu:
    """`achievable` is the share of the dense matmul peak that public measurements of large products reach.

    `nvml_names` are the product names that NVML, DCGM and their like give it; GB and GB/s are decimal, as published.
    `memory_mib` is what drivers report, None where that is not known.
    """

    name: str
    title: str
    peaks: Mapping[str, Peak]
    bandwidth_gb_s: float
    memory_gb: float
    power_w: float | None = None
    achievable: float | None = None
    achievable_source: str = ""
    source: str = ""
    retrieved: str = ""
    nvml_names: tuple[str, ...] = ()
    note: str = ""
    bandwidth_disputed: tuple[float, float] | None = None
    memory_mib: float | None = None

    @property
    def bytes_per_s(self) -> float:
        return self.bandwidth_gb_s * GIGA

    @property
    def memory_bytes(self) -> float:
        """As drivers report them, since published GB are mostly GiB; without that as published."""
        return self.memory_gb * GIGA if self.memory_mib is None else self.memory_mib * MEBI

    def peak(self, dtype: str) -> Peak:
        """Of the dtype, or of the next wider one that it multiplies. ValueError for a dtype that is none."""
        wanted = dtype
        while wanted not in self.peaks:
            if wanted not in WIDER:
                raise ValueError(f"{self.name} has no peak for {dtype}; it has: {', '.join(self.peaks)}")
            wanted = WIDER[wanted]
        return self.peaks[wanted]

    def flops_per_s(self, dtype: str) -> float:
        """Dense, at the dtype's peak or that of the next wider one."""
        return self.peak(dtype).dense_tflops * TERA
