"""The simulated server without its words: options, tokenizer, answers and the engine in real time."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

from servemark.adapters.sim.answers import Answers
from servemark.adapters.sim.dialects import names
from servemark.adapters.sim.driver import Driver
from servemark.adapters.sim.engine import Engine, EngineConfig, EngineRequest
from servemark.adapters.sim.faults import FaultPlan
from servemark.adapters.sim.figures import GB, gpu_figures, model_figures
from servemark.adapters.sim.options import SimOptions, option_table
from servemark.adapters.sim.steptime import Device, ModelCost, StepTime
from servemark.adapters.sim.tokenizer import Tokenizer
from servemark.harness.errors import BadInput


def kv_blocks(options: SimOptions) -> int:
    """How many KV blocks fit beside the weights; BadInput when the model does not fit."""
    if options.num_gpu_blocks_override:
        return options.num_gpu_blocks_override
    model, gpu = model_figures(options.model), gpu_figures(options.gpu)
    cost = ModelCost.of(model, options.tensor_parallel_size)
    room = gpu.memory_gb * GB * options.gpu_memory_utilization - cost.weight_bytes
    blocks = int(room // (cost.kv_bytes_per_token * options.block_size))
    if blocks < 1:
        raise BadInput(
            f"--model {options.model} has {cost.weight_bytes / GB:.1f} GB of weights per GPU, which do not fit "
            f"{options.gpu_memory_utilization:.0%} of the {gpu.memory_gb:g} GB of --gpu {options.gpu}; "
            "raise --tensor-parallel-size or take a larger GPU"
        )
    return blocks


def build_engine(options: SimOptions, answer_ids: tuple[int, ...]) -> Engine:
    config = EngineConfig(
        blocks=kv_blocks(options),
        block_size=options.block_size,
        max_num_seqs=options.max_num_seqs,
        max_num_batched_tokens=options.max_num_batched_tokens,
        prefix_caching=not options.no_prefix_caching,
    )
    device = Device.of(
        gpu_figures(options.gpu),
        options.bandwidth_efficiency,
        options.compute_efficiency,
        round(options.step_overhead_us * 1000),
    )
    cost = ModelCost.of(model_figures(options.model), options.tensor_parallel_size)
    return Engine(config, StepTime(cost, device), answer_ids)


def context_length(options: SimOptions, kv_tokens: int) -> int:
    longest = model_figures(options.model).max_context
    if not options.max_model_len:
        return min(longest, kv_tokens)
    if options.max_model_len > kv_tokens:
        raise BadInput(
            f"--max-model-len {options.max_model_len} exceeds the KV memory, which holds {kv_tokens} tokens; "
            "lower it, or take a larger GPU"
        )
    return options.max_model_len


def check_options(options: SimOptions) -> None:
    """Values that the model and GPU figures do not catch."""
    for name in ("bandwidth_efficiency", "compute_efficiency", "gpu_memory_utilization"):
        if not 0 < getattr(options, name) <= 1:
            raise BadInput(f"--{name.replace('_', '-')} is {getattr(options, name)}; it is a share above 0, up to 1")
    for name in (
        *("tensor_parallel_size", "max_num_seqs", "max_num_batched_tokens", "block_size"),
        *("eos_mean_tokens", "max_concurrent_requests"),
    ):
        if getattr(options, name) < 1:
            raise BadInput(f"--{name.replace('_', '-')} is {getattr(options, name)}; it is at least 1")
    for name in ("speed", "keep_alive_s"):
        if getattr(options, name) <= 0:
            raise BadInput(f"--{name.replace('_', '-')} is {getattr(options, name)}; it is above 0")
    for name in ("max_model_len", "num_gpu_blocks_override", "step_overhead_us", "stall_s"):
        if getattr(options, name) < 0:
            raise BadInput(f"--{name.replace('_', '-')} is {getattr(options, name)}; it is at least 0")
    if options.dialect not in names():
        raise BadInput(f"--dialect: there is no dialect {options.dialect!r}; there are: {', '.join(names())}")
    for option in option_table():
        if option.dialect not in (None, options.dialect) and getattr(options, option.name) != option.default:
            raise BadInput(f"{option.flag} is of --dialect {option.dialect}, not of {options.dialect}; leave it out")
    if not 0 <= options.port <= 65535:
        raise BadInput(f"--port is {options.port}; ports go from 0 (any free one) to 65535")
    if not re.fullmatch(r"[\w./:@+-]*", options.served_model_name):
        raise BadInput("--served-model-name has a character other than letters, digits and ./:@+-_")


class Simulation:
    """The state that every dialect works on.

    Each request's `tag` is called with every token of it, and then `after_step` with all that got one.
    """

    after_step: Callable[[list[EngineRequest]], None] | None = None

    def __init__(self, options: SimOptions) -> None:
        check_options(options)
        figures = model_figures(options.model)
        self.options = options
        self.model = options.served_model_name or options.model
        self.hf_id = figures.hf_id
        self.tokenizer = Tokenizer(figures.vocab)
        self.answers = Answers(self.tokenizer, options.seed, options.eos_mean_tokens)
        self.engine = build_engine(options, self.answers.ids)
        self.context = context_length(options, self.engine.config.kv_tokens)
        self.faults = FaultPlan.parse(options.fault, options.seed)
        self.driver = Driver(self.engine, options.speed, self._on_tokens)
        self.created = int(time.time())

    def abort(self, request: EngineRequest) -> None:
        """Nobody wants the rest of it."""
        self.engine.abort(request)
        request.tag = None

    def _on_tokens(self, emitted: list[EngineRequest]) -> None:
        for request in emitted:
            request.tag(request)
            if request.finish_reason is not None:
                request.tag = None  # leaves no cycle for the garbage collector
        if self.after_step is not None:
            self.after_step(emitted)
