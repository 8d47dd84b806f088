"""What Triton and TensorRT-LLM's backend count, under their names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from servemark.adapters.sim.engine import EngineRequest
from servemark.adapters.sim.exposition import Page
from servemark.adapters.sim.simulation import Simulation
from servemark.adapters.sim.stats import Histogram

_FIRST_RESPONSE_MS: Final = (100.0, 500.0, 2000.0, 5000.0)


class Figures:
    """What Triton counts of one model that requests are sent to."""

    def __init__(self) -> None:
        self.successes = 0
        self.failures = {"OTHER": 0}
        self.request_us, self.queue_us = 0, 0
        self.first_response_ms = Histogram(_FIRST_RESPONSE_MS)

    def started(self, request: EngineRequest) -> None:
        self.first_response_ms.observe((request.first_token_ns - request.arrival_ns) / 1e6)

    def ended(self, request: EngineRequest) -> None:
        self.successes += 1
        self.request_us += (request.last_token_ns - request.arrival_ns) // 1000
        self.queue_us += ((request.admitted_ns or request.arrival_ns) - request.arrival_ns) // 1000


def metrics_text(sim: Simulation, fronts: Mapping[str, Figures]) -> bytes:
    page, engine = Page(), sim.engine
    used = {name: figures for name, figures in fronts.items() if figures.successes or name == "ensemble"}
    labels = {name: f'model="{name}",version="1"' for name in used}
    for name, about, values in (
        ("request_success", "Requests that were answered", {name: one.successes for name, one in used.items()}),
        ("count", "Inferences", {name: one.successes for name, one in used.items()}),
        ("request_duration_us", "Time of requests", {name: one.request_us for name, one in used.items()}),
        ("queue_duration_us", "Time in the queue", {name: one.queue_us for name, one in used.items()}),
    ):
        told = {labels[model]: value for model, value in values.items()}
        page.counter(f"nv_inference_{name}", about, told)
    failures = {f'model="{name}",reason="OTHER",version="1"': one.failures["OTHER"] for name, one in used.items()}
    canceled = {f'model="{name}",reason="CANCELED",version="1"': 0 for name in used}
    canceled['model="ensemble",reason="CANCELED",version="1"'] = engine.stats.finished["abort"]
    page.counter("nv_inference_request_failure", "Requests that failed, by reason", {**failures, **canceled})
    pending = {f'model="{name}",version="1"': len(engine.waiting) for name in used}
    page.gauge("nv_inference_pending_request_count", "Requests in the queue", pending)
    for name, figures in used.items():
        histogram = figures.first_response_ms
        page.histogram("nv_inference_first_response_histogram_ms", "To the first response", histogram, labels[name])
    _engine(page, sim)
    return page.text()


def _engine(page: Page, sim: Simulation) -> None:
    """What the backend reports of itself, under the name of the engine's own model."""
    engine, stats, pool = sim.engine, sim.engine.stats, sim.engine.pool
    running, waiting = len(engine.running), len(engine.waiting)

    def gauges(family: str, label: str, values: Mapping[str, float]) -> None:
        told = {f'{label}="{key}",model="tensorrt_llm",version="1"': value for key, value in values.items()}
        page.gauge(f"nv_trt_llm_{family}_metrics", f"TRT LLM {family}", told)

    requests = {"active": running + waiting, "max": engine.config.max_num_seqs, "scheduled": running}
    gauges("request", "request_type", requests | {"context": 0, "waiting": waiting})
    blocks = {"max": pool.total, "free": pool.free, "used": pool.used, "tokens_per": engine.config.block_size}
    fraction = {"fraction": pool.used / pool.total, "reused": stats.prefix_hits // engine.config.block_size}
    gauges("kv_cache_block", "kv_cache_block_type", {**blocks, **fraction})
    batcher = {"generation_requests": running, "paused_requests": 0, "micro_batch_id": 0, "total_context_tokens": 0}
    gauges("inflight_batcher", "inflight_batcher_specific_metric", batcher)
    gauges("general", "general_type", {"iteration_counter": stats.steps})
    for what, histogram in (("input", stats.request_prompt_tokens), ("output", stats.request_generation_tokens)):
        label = f'model="tensorrt_llm",response_metric_type="total_{what}_tokens",version="1"'
        page.histogram(f"nv_llm_{what}_token_len", "TRT LLM response metrics", histogram, label)
