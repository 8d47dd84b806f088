"""What a user says of the hardware under a server: as flags of `bench run`, or as `hardware:` in a matrix's plan."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PlainSerializer, WithJsonSchema, model_validator

from servemark.harness.hardware.price import DEAREST
from servemark.harness.plan.strict import Count, Strict, one_or_many
from servemark.harness.units import DURATION_PATTERN, format_duration, parse_duration

Texts = Annotated[
    tuple[str, ...], BeforeValidator(one_or_many, json_schema_input_type=str | tuple[str, ...]), Field(strict=False)
]

Named = Annotated[str, Field(min_length=1)]

OFF = "off"


def _period(value: Any) -> int:
    return 0 if value == OFF else parse_duration(value)


Period = Annotated[
    int,
    BeforeValidator(_period),
    PlainSerializer(lambda value: format_duration(value) if value else OFF, return_type=str),
    WithJsonSchema({"anyOf": [{"const": OFF}, {"type": "string", "pattern": DURATION_PATTERN}]}),
]
"""Nanoseconds, written with a unit; 0 is off."""


def _each(value: Any) -> Any:
    """`0,1` as it is after --gpu-index, or a list."""
    given = one_or_many(value)
    if not all(isinstance(each, str) for each in given):
        return given
    found = [word.strip() for each in given for word in each.split(",") if word.strip()]
    if given and not found:
        raise ValueError("names no GPU; give indices or UUIDs, as 0,1")
    return found


Indices = Annotated[
    tuple[str, ...], BeforeValidator(_each, json_schema_input_type=str | tuple[str, ...]), Field(strict=False)
]


class HardwareSection(Strict):
    """What is left out is asked of the server and of the GPUs themselves."""

    gpu: Named | None = Field(default=None, description="kind of GPU (`bench list gpus`); without it what NVML names")
    gpus: Count | None = Field(default=None, description="how many the deployment has, all replicas together")
    gpu_file: Texts = Field(default=(), description="files of further kinds of GPU")
    tp: Count | None = Field(default=None, description="tensor parallel ranks of a server")
    pp: Count | None = Field(default=None, description="pipeline parallel ranks of a server")
    dp: Count | None = Field(default=None, description="data parallel ranks of a server")
    ep: bool | None = Field(default=None, description="experts are spread over the tensor and data ranks")
    dtype: Named | None = Field(default=None, description="format of the weights; without it the model's own")
    kv_dtype: Named | None = Field(default=None, description="format of the KV cache; without it the model's own")
    config: Named | None = Field(default=None, description="config.json of the model, its folder, or a known name")
    gpu_price: Annotated[float, Field(gt=0, le=DEAREST)] | None = Field(
        default=None, description="dollars an hour for one GPU"
    )
    prices: Named | None = Field(default=None, description="file of prices")
    gpu_metrics: Texts = Field(default=(), description="addresses of GPU exporters, where the GPUs are elsewhere")
    gpu_index: Indices = Field(default=(), description="GPUs that are sampled, by index or UUID; without it all")
    gpu_sample: Period = Field(
        default=200_000_000, description="period of the samples; off: the GPUs of this machine are let be"
    )

    @model_validator(mode="after")
    def _sampled(self) -> HardwareSection:
        if self.gpu_metrics and not self.gpu_sample:
            raise ValueError("gpu_sample is off, and gpu_metrics names what is to be sampled; leave one of them out")
        return self

    def from_folder(self, folder: Path) -> HardwareSection:
        """With its relative paths from there; a model's name that is no file stays one."""
        moved: dict[str, Any] = {"gpu_file": tuple(str(folder / each) for each in self.gpu_file)}
        if self.prices is not None:
            moved["prices"] = str(folder / self.prices)
        if self.config is not None and (folder / self.config).exists():
            moved["config"] = str(folder / self.config)
        return self.model_copy(update=moved)
