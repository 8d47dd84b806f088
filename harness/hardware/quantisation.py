"""Formats of weights and of the KV cache: bits, scales and zero points, and what they are multiplied as."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from servemark.harness.hardware.architecture import Weight
from servemark.harness.plaintext import one_line


@dataclass(frozen=True, slots=True)
class WeightFormat:
    """`block` is how many rows and columns (0 for all) share a scale of `scale_bits` and a zero point of `zero_bits`.

    `tensor_bits` are further scales of a whole matrix; `column_bits` go with each input. `compute` is the dtype of the
    multiplication. A plain format has nothing but its bits, and serves for vectors too.
    """

    name: str
    bits: float
    compute: str
    scale_bits: float = 0
    zero_bits: float = 0
    block: tuple[int, int] = (0, 0)
    tensor_bits: float = 0
    column_bits: float = 0

    @property
    def plain(self) -> bool:
        return not (self.scale_bits or self.zero_bits or self.tensor_bits or self.column_bits)

    def bytes(self, weight: Weight) -> float:
        """Of its matrices with their scales, without biases."""
        rows, columns = self.block[0] or weight.rows, self.block[1] or weight.columns
        blocks = -(-weight.rows // rows) * -(-weight.columns // columns)
        bits = self.bits * weight.rows * weight.columns + (self.scale_bits + self.zero_bits) * blocks
        return weight.count * (bits + self.tensor_bits + self.column_bits * weight.columns) / 8


def _by_name(*forms: WeightFormat) -> Mapping[str, WeightFormat]:
    return MappingProxyType({form.name: form for form in forms})


WEIGHT_FORMATS: Mapping[str, WeightFormat] = _by_name(
    # No peak is published for plain 32-bit matrix products; what 16 bit reaches is their bound.
    WeightFormat("fp32", 32, "bf16"),
    WeightFormat("bf16", 16, "bf16"),
    WeightFormat("fp16", 16, "bf16"),
    # A scale for each matrix, and one for its inputs, where those are not worked out on the way.
    WeightFormat("fp8", 8, "fp8", tensor_bits=64),
    WeightFormat("fp8-channel", 8, "fp8", scale_bits=32, block=(1, 0)),
    WeightFormat("fp8-block", 8, "fp8", scale_bits=32, block=(128, 128)),
    WeightFormat("fp8-weight-only", 8, "bf16", scale_bits=32, block=(1, 0)),
    WeightFormat("mxfp8", 8, "fp8", scale_bits=8, block=(1, 32)),
    WeightFormat("int8", 8, "int8", scale_bits=32, block=(1, 0)),
    WeightFormat("int8-weight-only", 8, "bf16", scale_bits=16, block=(1, 0)),
    WeightFormat("int4", 4, "bf16", scale_bits=16, block=(1, 128)),
    WeightFormat("int4-awq", 4, "bf16", scale_bits=16, zero_bits=4, block=(1, 128)),
    # GPTQ keeps the group of each input beside.
    WeightFormat("int4-gptq", 4, "bf16", scale_bits=16, zero_bits=4, block=(1, 128), column_bits=32),
    WeightFormat("nf4", 4, "bf16", scale_bits=32, block=(1, 64)),
    WeightFormat("nvfp4", 4, "fp4", scale_bits=8, block=(1, 16), tensor_bits=64),
    WeightFormat("nvfp4-weight-only", 4, "bf16", scale_bits=8, block=(1, 16), tensor_bits=32),
    # Activations stay at 16 bit, as gpt-oss is served; where they have 4 bit too it is mxfp4-full.
    WeightFormat("mxfp4", 4, "bf16", scale_bits=8, block=(1, 32)),
    WeightFormat("mxfp4-full", 4, "fp4", scale_bits=8, block=(1, 32)),
)

KV_FORMATS: Mapping[str, float] = MappingProxyType(
    {"fp32": 4.0, "bf16": 2.0, "fp16": 2.0, "fp8": 1.0, "int8": 1.0, "nvfp4": 0.5 + 1 / 16, "int4": 0.5}
)
"""Bytes of an element. Scales count where they are more than a few for a whole head."""

_OTHER_NAMES = MappingProxyType(
    {
        "float32": "fp32",
        "bfloat16": "bf16",
        "float16": "fp16",
        "half": "fp16",
        "fp8_e4m3": "fp8",
        "fp8_e5m2": "fp8",
        "awq": "int4-awq",
        "awq_marlin": "int4-awq",
        "gptq": "int4-gptq",
        "gptq_marlin": "int4-gptq",
        "bitsandbytes": "nf4",
        "modelopt": "fp8",
        "modelopt_fp4": "nvfp4",
        "ptpc_fp8": "fp8-channel",
        "fbgemm_fp8": "fp8-channel",
        "w8a8": "int8",
        "w4a16": "int4",
        "fp4": "nvfp4",
    }
)


def weight_format(name: str) -> WeightFormat:
    """By its name here, or one of those that servers have for it. Raises ValueError."""
    ours = _ours(name)
    if ours not in WEIGHT_FORMATS:
        raise ValueError(f"{one_line(name, 60)} is no known format of weights; known are {', '.join(WEIGHT_FORMATS)}")
    return WEIGHT_FORMATS[ours]


def kv_format(name: str) -> str:
    """Its name here. Raises ValueError."""
    ours = _ours(name)
    if ours not in KV_FORMATS:
        raise ValueError(f"{one_line(name, 60)} is no known format of the KV cache; known are {', '.join(KV_FORMATS)}")
    return ours


def _ours(name: str) -> str:
    plain = name.strip().lower().removeprefix("torch.")
    return _OTHER_NAMES.get(plain, plain)
