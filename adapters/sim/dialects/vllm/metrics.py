"""The engine's figures under the names and labels that vLLM gives them."""

from __future__ import annotations

from servemark.adapters.sim.exposition import Page
from servemark.adapters.sim.simulation import Simulation


def metrics_text(sim: Simulation) -> bytes:
    page = Page(f'engine="0",model_name="{sim.model}"')
    _state(page, sim)
    _counters(page, sim)
    _histograms(page, sim)
    page.histogram("sim:step_lateness_seconds", "How late the process ended a step", sim.driver.lateness)
    config, cache_dtype = sim.engine.config, sim.options.kv_dtype or "auto"
    labels = (
        f'block_size="{config.block_size}",cache_dtype="{cache_dtype}",'
        f'enable_prefix_caching="{config.prefix_caching}",'
        f'gpu_memory_utilization="{sim.options.gpu_memory_utilization}",'
        f'kv_cache_size_tokens="{config.kv_tokens}",num_gpu_blocks="{config.blocks}"'
    )
    page.gauge("vllm:cache_config_info", "The KV memory's configuration", {labels: 1})
    return page.text()


def _state(page: Page, sim: Simulation) -> None:
    engine, waiting = sim.engine, len(sim.engine.waiting)
    page.gauge("vllm:num_requests_running", "Requests in the batch", len(engine.running))
    page.gauge("vllm:num_requests_waiting", "Requests in the queue", waiting)
    reasons = {'reason="capacity"': waiting, 'reason="deferred"': 0}
    page.gauge("vllm:num_requests_waiting_by_reason", "Requests in the queue, by reason", reasons)
    page.gauge("vllm:kv_cache_usage_perc", "Share of KV blocks in use, 1 is all", engine.pool.used / engine.pool.total)


def _counters(page: Page, sim: Simulation) -> None:
    stats = sim.engine.stats
    page.counter("vllm:prefix_cache_queries_total", "Prompt tokens looked up", stats.prefix_queries)
    page.counter("vllm:prefix_cache_hits_total", "Prompt tokens found", stats.prefix_hits)
    page.counter("vllm:num_preemptions_total", "Preemptions", stats.preemptions)
    page.counter("vllm:prompt_tokens_total", "Prompt tokens of started answers", stats.prompt_tokens)
    sources = {
        'source="local_compute"': stats.prompt_tokens - stats.cached_prompt_tokens,
        'source="local_cache_hit"': stats.cached_prompt_tokens,
        'source="external_kv_transfer"': 0,
    }
    page.counter("vllm:prompt_tokens_by_source_total", "Prompt tokens, by source", sources)
    page.counter("vllm:prompt_tokens_cached_total", "Prompt tokens found", stats.cached_prompt_tokens)
    page.counter("vllm:generation_tokens_total", "Tokens generated", stats.generation_tokens)
    ends = {f'finished_reason="{reason}"': count for reason, count in stats.finished.items()}
    page.counter("vllm:request_success_total", "Requests that ended, by reason", ends)
    _work(page, sim)


def _work(page: Page, sim: Simulation) -> None:
    """What vLLM estimates with --enable-mfu-metrics is here what the steps were made of."""
    stats = sim.engine.stats
    page.counter("vllm:estimated_flops_per_gpu_total", "FLOPs of each GPU", stats.flops)
    page.counter("vllm:estimated_read_bytes_per_gpu_total", "Bytes that each GPU read", stats.read_bytes)
    page.counter("vllm:estimated_write_bytes_per_gpu_total", "Bytes that each GPU wrote", stats.written_bytes)


def _histograms(page: Page, sim: Simulation) -> None:
    stats = sim.engine.stats
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
        page.histogram(f"vllm:{name}", about, histogram)
