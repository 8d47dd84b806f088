"""The simulator's options, in one place: command line, `serve`, `launch` and the documentation read this table."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from servemark.adapters.sim.dialects import names


def _option(default: Any, about: str, dialect: str | None = None) -> Any:
    return dataclasses.field(default=default, metadata={"help": about, "dialect": dialect})


@dataclass(frozen=True, slots=True)
class SimOptions:
    """What a simulated server is. Defaults follow vLLM's where it has the option."""

    dialect: str = _option("vllm", f"server whose API it speaks: {', '.join(names())}")
    model: str = _option("llama-3.1-8b", "model: a known name, or the path of a config.json")
    gpu: str = _option("h100-sxm", "GPU (`bench list gpus`)")
    dtype: str = _option("", "format of the weights, such as fp8; empty: the model's own")
    kv_dtype: str = _option("", "format of the KV cache; empty: the model's own")
    tensor_parallel_size: int = _option(1, "GPUs that share the model; communication is not modelled")
    host: str = _option("127.0.0.1", "address to listen on")
    port: int = _option(8399, "port to listen on; 0 picks a free one")
    served_model_name: str = _option("", "model name in the API; empty: the model's")
    seed: int = _option(0, "seed of answers, their lengths and faults")
    speed: float = _option(1.0, "how many times faster than the modelled GPU")
    max_model_len: int = _option(0, "context length; 0: the model's, or what fits the KV memory if less")
    max_num_seqs: int = _option(256, "most requests in one step")
    max_num_batched_tokens: int = _option(8192, "token budget of one step")
    gpu_memory_utilization: float = _option(0.9, "share of GPU memory for weights and KV blocks")
    block_size: int = _option(16, "tokens in a KV block")
    num_gpu_blocks_override: int = _option(0, "KV blocks; 0: as many as the memory holds")
    no_prefix_caching: bool = _option(False, "compute every prompt anew")
    bandwidth_efficiency: float = _option(0.8, "share of the peak memory bandwidth that is reached")
    compute_efficiency: float = _option(0.6, "share of the peak dense FLOP/s that is reached")
    step_overhead_us: float = _option(500.0, "fixed time of each step, in microseconds")
    eos_mean_tokens: float = _option(256.0, "mean answer length where EOS is not ignored")
    enable_prompt_tokens_details: bool = _option(False, "report cached prompt tokens in the usage")
    max_concurrent_requests: int = _option(128, "tgi: requests over this many fail as overloaded", "tgi")
    accumulate_tokens: bool = _option(False, "trtllm-triton: tensorrt_llm_bls gives the text so far", "trtllm-triton")
    keep_alive_s: float = _option(5.0, "idle connections are closed after this many seconds")
    fault: str = _option("", "failures on demand: kind:share[,kind:share...]")
    stall_s: float = _option(30.0, "length of the fault `stall`, in seconds")
    die_with_parent: bool = _option(False, "exit when standard input is closed")


@dataclass(frozen=True, slots=True)
class Option:
    """One row of the table. `type` is str, int, float or bool; a bool is a flag without a value.

    `dialect` is the only one that has it, None where all have.
    """

    name: str
    flag: str
    type: type
    default: Any
    help: str
    dialect: str | None


def option_table() -> Iterator[Option]:
    for field in dataclasses.fields(SimOptions):
        yield Option(
            name=field.name,
            flag="--" + field.name.replace("_", "-"),
            type=type(field.default),
            default=field.default,
            help=field.metadata["help"],
            dialect=field.metadata["dialect"],
        )


def command_line(options: SimOptions) -> list[str]:
    """The flags that say what differs from the defaults."""
    words = []
    for option in option_table():
        value = getattr(options, option.name)
        if value == option.default:
            continue
        words += [option.flag] if option.type is bool else [option.flag, str(value)]
    return words
