"""The simulated server: vLLM's routes over the engine, in one asyncio process."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

import msgspec

from servemark.adapters.sim.answers import Answers
from servemark.adapters.sim.asked import Limits, Refusal, chat_ids, check_model, error_body, read_asked, read_json
from servemark.adapters.sim.connection import Connection, Exchange
from servemark.adapters.sim.driver import Driver
from servemark.adapters.sim.engine import Engine, EngineConfig, EngineRequest
from servemark.adapters.sim.faults import AT_ONCE, FaultPlan
from servemark.adapters.sim.figures import GB, gpu_figures, model_figures
from servemark.adapters.sim.generation import Generation
from servemark.adapters.sim.metrics import CONTENT_TYPE, metrics_text
from servemark.adapters.sim.options import SimOptions
from servemark.adapters.sim.steptime import Device, ModelCost, StepTime
from servemark.adapters.sim.tokenizer import Tokenizer
from servemark.harness.clock import SECOND, now_ns
from servemark.harness.errors import BadInput
from servemark.harness.types import Endpoint

VERSION: Final = "0.1.0-sim"
OWNER: Final = "servemark-sim"
_json = msgspec.json.encode


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
    for name in ("tensor_parallel_size", "max_num_seqs", "max_num_batched_tokens", "block_size", "eos_mean_tokens"):
        if getattr(options, name) < 1:
            raise BadInput(f"--{name.replace('_', '-')} is {getattr(options, name)}; it is at least 1")
    for name in ("speed", "keep_alive_s"):
        if getattr(options, name) <= 0:
            raise BadInput(f"--{name.replace('_', '-')} is {getattr(options, name)}; it is above 0")
    for name in ("max_model_len", "num_gpu_blocks_override", "step_overhead_us", "stall_s"):
        if getattr(options, name) < 0:
            raise BadInput(f"--{name.replace('_', '-')} is {getattr(options, name)}; it is at least 0")
    if not 0 <= options.port <= 65535:
        raise BadInput(f"--port is {options.port}; ports go from 0 (any free one) to 65535")
    if not re.fullmatch(r"[\w./:@+-]*", options.served_model_name):
        raise BadInput("--served-model-name has a character other than letters, digits and ./:@+-_")


class SimServer:
    """Routes and the state behind them. `handle` answers one exchange, at once or token by token."""

    def __init__(self, options: SimOptions) -> None:
        check_options(options)
        self.options = options
        self.model = options.served_model_name or options.model
        vocab = model_figures(options.model).vocab
        self.tokenizer = Tokenizer(vocab)
        self.answers = Answers(self.tokenizer, options.seed, options.eos_mean_tokens)
        self.engine = build_engine(options, self.answers.ids)
        self.limits = Limits(self.model, context_length(options, self.engine.config.kv_tokens), vocab)
        self.faults = FaultPlan.parse(options.fault, options.seed)
        self.driver = Driver(self.engine, options.speed, self._on_tokens)
        self.connections: set[Connection] = set()
        self._created = int(time.time())
        self._asked = 0
        self._routes: Mapping[str, tuple[str, Callable[[Exchange], None]]] = {
            "/health": ("GET", self._health),
            "/ping": ("GET", self._health),
            "/version": ("GET", self._version),
            "/v1/models": ("GET", self._models),
            "/metrics": ("GET", self._metrics),
            "/tokenize": ("POST", self._tokenize),
            "/reset_prefix_cache": ("POST", self._reset_prefix_cache),
            "/v1/completions": ("POST", partial(self._generate, "completions")),
            "/v1/chat/completions": ("POST", partial(self._generate, "chat")),
        }

    def connection(self) -> Connection:
        return Connection(self.handle, self.connections)

    def handle(self, exchange: Exchange) -> None:
        method, handler = self._routes.get(exchange.path, ("", None))
        if handler is None:
            exchange.respond(404, b'{"detail":"Not Found"}')
        elif exchange.method != method:
            exchange.respond(405, b'{"detail":"Method Not Allowed"}', headers=(("allow", method),))
        else:
            try:
                handler(exchange)
            except Refusal as refusal:
                exchange.respond(refusal.status, refusal.body)

    async def close_idle_connections(self) -> None:
        """Until cancelled: closes those that have been idle for `keep_alive_s`, as vLLM's server does."""
        limit_ns = round(self.options.keep_alive_s * SECOND)
        while True:
            await asyncio.sleep(min(1.0, self.options.keep_alive_s / 4))
            oldest_ns = now_ns() - limit_ns
            for connection in list(self.connections):
                if connection.idle_since_ns is not None and connection.idle_since_ns < oldest_ns:
                    connection.close()

    # -- generation

    def _generate(self, endpoint: Endpoint, exchange: Exchange) -> None:
        ordinal, self._asked = self._asked, self._asked + 1
        fault = self.faults.draw(ordinal)
        if fault is not None and fault.kind in AT_ONCE:
            self._fail_at_once(fault.kind, exchange)
            return
        asked = read_asked(endpoint, exchange.body, self.limits, self.tokenizer)
        start, ends_at = self.answers.plan(asked.prompt, asked.min_tokens, asked.seed)
        request = EngineRequest(
            prompt=asked.prompt,
            max_tokens=asked.max_tokens,
            arrival_ns=exchange.arrived_ns,
            ends_at=None if asked.ignore_eos else ends_at,
            answer_start=start,
        )
        give_up = partial(self._give_up, request)
        exchange.on_lost = give_up
        id_ = f"{'chatcmpl' if endpoint == 'chat' else 'cmpl'}-{self.options.seed:x}-{ordinal:08x}"
        name = (id_, self.model, int(time.time()), f"{OWNER}-{VERSION}")
        request.tag = Generation(asked, exchange, self.answers, name, fault, self.options.stall_s, give_up)
        self.driver.submit(request)

    def _on_tokens(self, emitted: list[EngineRequest]) -> None:
        details = self.options.enable_prompt_tokens_details
        for request in emitted:
            request.tag.on_token(request, request.cached_tokens if details else None)
            if request.finish_reason is not None:
                request.tag = None  # leaves no cycle for the garbage collector

    def _give_up(self, request: EngineRequest) -> None:
        self.engine.abort(request)
        request.tag = None

    def _fail_at_once(self, kind: str, exchange: Exchange) -> None:
        if kind == "reset":
            exchange.cut(reset=True)
            return
        status, type_ = (503, "ServiceUnavailableError") if kind == "http503" else (500, "InternalServerError")
        exchange.respond(status, error_body("simulated fault", type_, None, status))

    # -- the other routes

    def _health(self, exchange: Exchange) -> None:
        exchange.respond(200, b"")

    def _version(self, exchange: Exchange) -> None:
        exchange.respond(200, _json({"version": VERSION}))

    def _models(self, exchange: Exchange) -> None:
        card: dict[str, Any] = {"id": self.model, "object": "model", "created": self._created, "owned_by": OWNER}
        root = model_figures(self.options.model).hf_id
        card |= {"root": root, "parent": None, "max_model_len": self.limits.max_model_len, "permission": []}
        exchange.respond(200, _json({"object": "list", "data": [card]}))

    def _metrics(self, exchange: Exchange) -> None:
        utilization = self.options.gpu_memory_utilization
        text = metrics_text(self.engine, self.model, utilization, self.driver.lateness)
        exchange.respond(200, text, CONTENT_TYPE)

    def _tokenize(self, exchange: Exchange) -> None:
        fields = read_json(exchange.body)
        check_model(fields, self.limits)
        prompt = fields.get("prompt")
        if isinstance(prompt, str):
            ids = self.tokenizer.ids(prompt)
        else:
            ids = chat_ids(fields, self.tokenizer)
        answer = {"count": len(ids), "max_model_len": self.limits.max_model_len, "tokens": ids, "token_strs": None}
        exchange.respond(200, _json(answer))

    def _reset_prefix_cache(self, exchange: Exchange) -> None:
        """200 even where requests run and nothing is reset, as with vLLM."""
        self.engine.pool.forget_all()
        exchange.respond(200, b"")
