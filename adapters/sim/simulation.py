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
from servemark.adapters.sim.hardware import context_length, hardware_of, kv_blocks
from servemark.adapters.sim.options import SimOptions, option_table
from servemark.adapters.sim.steptime import Device, StepTime
from servemark.adapters.sim.tokenizer import Tokenizer
from servemark.harness.errors import BadInput


def build_engine(options: SimOptions, answer_ids: tuple[int, ...]) -> Engine:
    config = EngineConfig(
        blocks=kv_blocks(options),
        block_size=options.block_size,
        max_num_seqs=options.max_num_seqs,
        max_num_batched_tokens=options.max_num_batched_tokens,
        prefix_caching=not options.no_prefix_caching,
    )
    hardware = hardware_of(options)
    device = Device.of(
        hardware.gpu,
        options.bandwidth_efficiency,
        options.compute_efficiency,
        round(options.step_overhead_us * 1000),
    )
    return Engine(config, StepTime(hardware.arithmetic, device), answer_ids)


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
        self.options = options
        self.hardware = hardware_of(options)
        self.model = options.served_model_name or self.hardware.api_name
        self.tokenizer = Tokenizer(self.hardware.model.architecture.vocab)
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
