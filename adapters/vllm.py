"""vLLM's OpenAI server: chat and plain completions, usage on every chunk, outputs of a forced length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from servemark.adapters.base import (
    BaseAdapter,
    health_of,
    json_answer,
    model_list,
    owned_by,
    post_json,
    prometheus,
    token_ids,
)
from servemark.adapters.openai_chunks import ChunkDecoder, common_body, post
from servemark.harness.server.prometheus import parse_metrics
from servemark.harness.types import (
    Decoder,
    Endpoint,
    HttpRequest,
    Launcher,
    Options,
    Probe,
    Promises,
    Request,
    Signature,
    Tokenization,
)

# Labels of vllm:cache_config_info that explain a result.
_SETTINGS = (
    "block_size",
    "cache_dtype",
    "enable_prefix_caching",
    "gpu_memory_utilization",
    "kv_cache_size_tokens",
    "num_gpu_blocks",
)

# Times are in seconds, kv_usage is a share of 1; a second name is an older vLLM's.
METRICS: Mapping[str, tuple[str, ...]] = {
    "running": ("vllm:num_requests_running",),
    "waiting": ("vllm:num_requests_waiting",),
    "kv_usage": ("max(vllm:kv_cache_usage_perc)", "max(vllm:gpu_cache_usage_perc)"),
    "preemptions": ("vllm:num_preemptions",),
    "prefix_queries": ("vllm:prefix_cache_queries", "vllm:gpu_prefix_cache_queries"),
    "prefix_hits": ("vllm:prefix_cache_hits", "vllm:gpu_prefix_cache_hits"),
    "prompt_tokens": ("vllm:prompt_tokens",),
    "prompt_tokens_cached": (
        "vllm:prompt_tokens_cached",
        'vllm:prompt_tokens_by_source{source="local_cache_hit"}',
    ),
    "generation_tokens": ("vllm:generation_tokens",),
    "requests_finished": ("vllm:request_success",),
    "requests_aborted": ('vllm:request_success{finished_reason="abort"}',),
    "requests_rejected": ("vllm:admission_rejections",),
    "ttft_sum": ("vllm:time_to_first_token_seconds_sum",),
    "ttft_count": ("vllm:time_to_first_token_seconds_count",),
    "itl_sum": ("vllm:inter_token_latency_seconds_sum", "vllm:time_per_output_token_seconds_sum"),
    "itl_count": ("vllm:inter_token_latency_seconds_count", "vllm:time_per_output_token_seconds_count"),
    "tpot_sum": ("vllm:request_time_per_output_token_seconds_sum",),
    "tpot_count": ("vllm:request_time_per_output_token_seconds_count",),
    "e2e_sum": ("vllm:e2e_request_latency_seconds_sum",),
    "e2e_count": ("vllm:e2e_request_latency_seconds_count",),
    "queue_time_sum": ("vllm:request_queue_time_seconds_sum",),
    "queue_time_count": ("vllm:request_queue_time_seconds_count",),
    "prefill_time_sum": ("vllm:request_prefill_time_seconds_sum",),
    "prefill_time_count": ("vllm:request_prefill_time_seconds_count",),
    "decode_time_sum": ("vllm:request_decode_time_seconds_sum",),
    "decode_time_count": ("vllm:request_decode_time_seconds_count",),
    "iterations": ("vllm:iteration_tokens_total_count",),
    "iteration_tokens": ("vllm:iteration_tokens_total_sum",),
    # Advance only with --enable-mfu-metrics.
    "est_flops_per_gpu": ("vllm:estimated_flops_per_gpu",),
    "est_read_bytes_per_gpu": ("vllm:estimated_read_bytes_per_gpu",),
    "est_write_bytes_per_gpu": ("vllm:estimated_write_bytes_per_gpu",),
    "spec_drafts": ("vllm:spec_decode_num_drafts",),
    "spec_draft_tokens": ("vllm:spec_decode_num_draft_tokens",),
    "spec_accepted_tokens": ("vllm:spec_decode_num_accepted_tokens",),
}

# After vllm/v1/metrics/stats.py and vllm/renderers/base.py of 0.32.
_NOTES = {
    "ttft": "from when the front end takes the request up, in current versions before its chat template and tokeniser, "
    "to when it reads the engine's first output",
    "itl": "one value for each step that gave a request tokens, by the engine's clock",
    "e2e": "from when the front end takes the request up to when it reads the engine's last output",
    "queue_time": "from the scheduler's queue to the first step that the request is part of",
    "prefill_time": "from that step to the first token, by the engine's clock",
}


def _ask_text_ids(model: str, text: str) -> HttpRequest:
    """Special tokens as /v1/completions adds them, so that the count is the one a request will have."""
    return post_json("/tokenize", {"model": model, "prompt": text, "add_special_tokens": True})


def _ask_chat_ids(model: str, content: str) -> HttpRequest:
    messages = [{"role": "user", "content": content}]
    body = {"model": model, "messages": messages, "add_generation_prompt": True, "add_special_tokens": False}
    return post_json("/tokenize", body)


def _read_models(status: int, body: bytes) -> Mapping[str, Any]:
    if status != 200:
        return {}
    cards = model_list(json_answer("/v1/models", status, body))
    lengths = [length for card in cards if isinstance(length := card.get("max_model_len"), int)]
    return {
        "engine": "vllm" if any(card.get("owned_by") == "vllm" for card in cards) else None,
        "models": tuple(str(card["id"]) for card in cards),
        "context_tokens": min(lengths, default=None),
        "settings": _root(cards),
    }


def _root(cards: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """What the base model was loaded from: a folder of the server's machine, or a name on the Hub."""
    roots = (card.get("root") for card in cards if not card.get("parent"))
    root = next((root for root in roots if isinstance(root, str) and root), None)
    return {} if root is None else {"root": root}


def _read_version(status: int, body: bytes) -> Mapping[str, Any]:
    if status != 200:
        return {}
    return {"version": json_answer("/version", status, body).get("version")}


def _read_settings(status: int, body: bytes) -> Mapping[str, Any]:
    try:
        infos = parse_metrics(body).labels("vllm:cache_config_info") if status == 200 else []
    except ValueError:
        return {}
    return {"settings": {name: infos[0][name] for name in _SETTINGS if name in infos[0]}} if infos else {}


def _command(words: Sequence[str], host: str, port: int) -> Sequence[str]:
    return ("vllm", "serve", *words, "--host", host, "--port", str(port))


class VllmAdapter(BaseAdapter):
    name = "vllm"
    about = "vLLM's OpenAI server (vllm serve)"
    default_url = "http://localhost:8000"
    endpoints: tuple[Endpoint, ...] = ("chat", "completions")
    # cached_tokens stand in its usage only with --enable-prompt-tokens-details.
    promised = Promises(
        fixed_length=True,
        exact_counts=True,
        cached_tokens=False,
        per_chunk_counts=True,
        token_id_prompts=True,
    )
    tokenization = Tokenization(_ask_text_ids, _ask_chat_ids, token_ids("/tokenize"))
    metrics = (prometheus("/metrics", METRICS, notes=_NOTES),)
    launcher: Launcher | None = Launcher(_command, version=("vllm", "--version"))
    # Served only where the server runs with VLLM_SERVER_DEV_MODE=1.
    cache_reset = HttpRequest("POST", "/reset_prefix_cache")
    signature: Signature | None = Signature(HttpRequest("GET", "/v1/models"), owned_by("vllm"))

    def probes(self) -> Sequence[Probe]:
        return (
            Probe("readiness", HttpRequest("GET", "/health"), health_of("vLLM"), required=True),
            Probe("models", HttpRequest("GET", "/v1/models"), _read_models, required=True),
            Probe("version", HttpRequest("GET", "/version"), _read_version),
            Probe("settings", HttpRequest("GET", "/metrics"), _read_settings),
        )

    def encode(self, request: Request, options: Options) -> HttpRequest:
        body = common_body(request, options)
        body["stream_options"]["continuous_usage_stats"] = True
        length = request.asked_output_tokens
        if length is not None:
            body["max_completion_tokens" if options.endpoint == "chat" else "max_tokens"] = length
            if options.force_output_length:
                body |= {"ignore_eos": True, "min_tokens": length}
        return post(body, options)

    def decoder(self, endpoint: Endpoint) -> Decoder:
        return ChunkDecoder()


ADAPTER = VllmAdapter()
