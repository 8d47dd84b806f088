"""The engine's figures as Prometheus text, under the names and labels that vLLM gives them."""

from __future__ import annotations

from collections.abc import Iterator

from servemark.adapters.sim.engine import Engine
from servemark.adapters.sim.stats import Histogram

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def metrics_text(engine: Engine, model: str, gpu_memory_utilization: float, lateness: Histogram) -> bytes:
    labels = f'engine="0",model_name="{model}"'
    return "\n".join([*_lines(engine, labels, gpu_memory_utilization, lateness), ""]).encode()


def _lines(engine: Engine, labels: str, utilization: float, lateness: Histogram) -> Iterator[str]:
    stats, pool = engine.stats, engine.pool
    waiting = len(engine.waiting)
    yield from _gauge("vllm:num_requests_running", "Requests in the batch", labels, len(engine.running))
    yield from _gauge("vllm:num_requests_waiting", "Requests in the queue", labels, waiting)
    reason = {'reason="capacity"': waiting, 'reason="deferred"': 0}
    yield from _by("vllm:num_requests_waiting_by_reason", "Requests in the queue, by reason", labels, reason, "gauge")
    usage = pool.used / pool.total
    yield from _gauge("vllm:kv_cache_usage_perc", "Share of KV blocks in use, 1 is all", labels, usage)

    yield from _counter("vllm:prefix_cache_queries", "Prompt tokens looked up", labels, stats.prefix_queries)
    yield from _counter("vllm:prefix_cache_hits", "Prompt tokens found", labels, stats.prefix_hits)
    yield from _counter("vllm:num_preemptions", "Preemptions", labels, stats.preemptions)
    yield from _counter("vllm:prompt_tokens", "Prompt tokens of started answers", labels, stats.prompt_tokens)
    computed = stats.prompt_tokens - stats.cached_prompt_tokens
    sources = {
        'source="local_compute"': computed,
        'source="local_cache_hit"': stats.cached_prompt_tokens,
        'source="external_kv_transfer"': 0,
    }
    yield from _by("vllm:prompt_tokens_by_source_total", "Prompt tokens, by source", labels, sources, "counter")
    yield from _counter("vllm:prompt_tokens_cached", "Prompt tokens found", labels, stats.cached_prompt_tokens)
    yield from _counter("vllm:generation_tokens", "Tokens generated", labels, stats.generation_tokens)
    ends = {f'finished_reason="{reason}"': count for reason, count in stats.finished.items()}
    yield from _by("vllm:request_success_total", "Requests that ended, by reason", labels, ends, "counter")

    for name, about, histogram in (
        ("time_to_first_token_seconds", "From arrival to the first token", stats.ttft_s),
        ("inter_token_latency_seconds", "Between tokens of a request", stats.itl_s),
        ("request_time_per_output_token_seconds", "Mean between tokens, per request", stats.tpot_s),
        ("e2e_request_latency_seconds", "From arrival to the last token", stats.e2e_s),
        ("request_queue_time_seconds", "From arrival to admission", stats.queue_s),
        ("request_prefill_time_seconds", "From admission to the first token", stats.prefill_s),
        ("request_decode_time_seconds", "From the first token to the last", stats.decode_s),
        ("request_inference_time_seconds", "From admission to the last token", stats.inference_s),
        ("request_prompt_tokens", "Prompt lengths", stats.request_prompt_tokens),
        ("request_generation_tokens", "Answer lengths", stats.request_generation_tokens),
        ("iteration_tokens_total", "Tokens of each step that gave any", stats.step_tokens),
    ):
        yield from _histogram(f"vllm:{name}", about, labels, histogram)
    yield from _histogram("sim:step_lateness_seconds", "How late the process ended a step", labels, lateness)

    config = (
        f'block_size="{engine.config.block_size}",cache_dtype="auto",'
        f'enable_prefix_caching="{engine.config.prefix_caching}",gpu_memory_utilization="{utilization}",'
        f'kv_cache_size_tokens="{engine.config.kv_tokens}",num_gpu_blocks="{engine.config.blocks}"'
    )
    yield from _gauge("vllm:cache_config_info", "The KV memory's configuration", f'engine="0",{config}', 1)


def _gauge(name: str, about: str, labels: str, value: float) -> Iterator[str]:
    yield from _head(name, about, "gauge")
    yield f"{name}{{{labels}}} {float(value)}"


def _counter(name: str, about: str, labels: str, value: float) -> Iterator[str]:
    yield from _head(f"{name}_total", about, "counter")
    yield f"{name}_total{{{labels}}} {float(value)}"


def _by(name: str, about: str, labels: str, values: dict[str, int], kind: str) -> Iterator[str]:
    yield from _head(name, about, kind)
    for label, value in values.items():
        yield f"{name}{{{labels},{label}}} {float(value)}"


def _histogram(name: str, about: str, labels: str, histogram: Histogram) -> Iterator[str]:
    yield from _head(name, about, "histogram")
    total = 0
    for bound, count in zip((*map(float, histogram.bounds), "+Inf"), histogram.counts, strict=True):
        total += count
        yield f'{name}_bucket{{{labels},le="{bound}"}} {float(total)}'
    yield f"{name}_count{{{labels}}} {float(total)}"
    yield f"{name}_sum{{{labels}}} {histogram.sum}"


def _head(name: str, about: str, kind: str) -> Iterator[str]:
    yield f"# HELP {name} {about}."
    yield f"# TYPE {name} {kind}"
