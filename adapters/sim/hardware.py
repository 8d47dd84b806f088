"""What is simulated: a model on GPUs, how much KV cache fits beside it, and how the two are named."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from servemark.adapters.sim.options import SimOptions
from servemark.harness.errors import BadInput
from servemark.harness.hardware.device import GIGA, Gpu
from servemark.harness.hardware.devices import gpu
from servemark.harness.hardware.known import find_model, known, known_models
from servemark.harness.hardware.layout import Layout
from servemark.harness.hardware.model import Model
from servemark.harness.hardware.work import Arithmetic


@dataclass(frozen=True, slots=True)
class Hardware:
    """`model_name` is what `--model` takes elsewhere too, a path made absolute; `hf_id` the model's on the Hub, if any.

    `api_name` is what requests ask for where no other name is given.
    """

    arithmetic: Arithmetic
    gpu: Gpu
    model_name: str
    hf_id: str
    api_name: str

    @property
    def model(self) -> Model:
        return self.arithmetic.model

    @property
    def facts(self) -> dict[str, str | int]:
        """What a client needs to do the same arithmetic."""
        return {
            "hardware_model": self.model_name,
            "hardware_gpu": self.gpu.name,
            "tensor_parallel_size": self.arithmetic.layout.tensor,
            "dtype": self.model.weights,
            "kv_cache_dtype": self.model.kv,
        }


def hardware_of(options: SimOptions) -> Hardware:
    """BadInput where the model, the GPU or a format is not known."""
    model = find_model(options.model, options.dtype or None, options.kv_dtype or None)
    arithmetic, device = Arithmetic(model, Layout(tensor=options.tensor_parallel_size)), gpu(options.gpu)
    path = Path(options.model)
    if path.exists():
        whole = str(path.resolve())
        return Hardware(arithmetic, device, whole, whole, re.sub(r"[^\w./:@+-]+", "-", model.name, flags=re.ASCII))
    if model.name in known_models():
        return Hardware(arithmetic, device, model.name, known(model.name).hf_id, options.model.strip())
    return Hardware(arithmetic, device, options.model, options.model, options.model)


def kv_blocks(options: SimOptions) -> int:
    """How many KV blocks fit beside the weights; BadInput when the model does not fit."""
    if options.num_gpu_blocks_override:
        return options.num_gpu_blocks_override
    hardware = hardware_of(options)
    weights, memory = hardware.arithmetic.resident_bytes, hardware.gpu.memory_bytes
    token = hardware.arithmetic.kv_written / options.tensor_parallel_size  # a block has room for it in every layer
    blocks = int((memory * options.gpu_memory_utilization - weights) // (token * options.block_size))
    if blocks < 1:
        raise BadInput(
            f"--model {options.model} has {weights / GIGA:.1f} GB of weights per GPU, which do not fit "
            f"{options.gpu_memory_utilization:.0%} of the {memory / GIGA:.1f} GB of --gpu {options.gpu}; "
            "raise --tensor-parallel-size or take a larger GPU"
        )
    return blocks


def context_length(options: SimOptions, kv_tokens: int) -> int:
    if not options.max_model_len:
        longest = hardware_of(options).model.architecture.max_context
        return kv_tokens if longest is None else min(longest, kv_tokens)
    if options.max_model_len > kv_tokens:
        raise BadInput(
            f"--max-model-len {options.max_model_len} exceeds the KV memory, which holds {kv_tokens} tokens; "
            "lower it, or take a larger GPU"
        )
    return options.max_model_len
