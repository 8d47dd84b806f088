"""TensorRT-LLM's OpenAI server, trtllm-serve: only fields that it knows, usage on every chunk, forced lengths.

From the server's source, tensorrt_llm/serve/{openai_protocol,openai_server,postprocess_handlers}.py and
tensorrt_llm/metrics/collector.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from servemark.adapters.base import BaseAdapter, health_of, json_answer, model_list, owned_by, post_json, token_ids
from servemark.adapters.openai_chunks import ChunkDecoder, common_body, post
from servemark.adapters.trtllm_iterations import ITERATIONS
from servemark.harness.server.prometheus import Metrics, parse_metrics
from servemark.harness.types import (
    Decoder,
    Endpoint,
    HttpRequest,
    Launcher,
    MetricsReader,
    MetricsSource,
    Options,
    Probe,
    Promises,
    Request,
    Signature,
    Tokenization,
)

# Levels are one series for each process that the server has had.
OF_ITERATIONS: Mapping[str, tuple[str, ...]] = {
    "running": ("max(trtllm_num_requests_running)",),
    "waiting": ("max(trtllm_num_requests_waiting)",),
    "kv_usage": ("max(trtllm_kv_cache_utilization)",),
}
OF_REQUESTS: Mapping[str, tuple[str, ...]] = {
    "prompt_tokens": ("trtllm_prompt_tokens",),
    "prompt_tokens_cached": ("trtllm_prompt_cached_tokens",),
    "prefix_queries": ("trtllm_prompt_tokens",),  # every prompt is looked up
    "prefix_hits": ("trtllm_prompt_cached_tokens",),
    "generation_tokens": ("trtllm_generation_tokens",),
    "requests_finished": ("trtllm_request_success",),
    "requests_failed": ("trtllm_request_error",),
    "ttft_sum": ("trtllm_time_to_first_token_seconds_sum",),
    "ttft_count": ("trtllm_time_to_first_token_seconds_count",),
    "tpot_sum": ("trtllm_time_per_output_token_seconds_sum",),
    "tpot_count": ("trtllm_time_per_output_token_seconds_count",),
    "e2e_sum": ("trtllm_e2e_request_latency_seconds_sum",),
    "e2e_count": ("trtllm_e2e_request_latency_seconds_count",),
    "queue_time_sum": ("trtllm_request_queue_time_seconds_sum",),
    "queue_time_count": ("trtllm_request_queue_time_seconds_count",),
    "prefill_time_sum": ("trtllm_request_prefill_time_seconds_sum",),
    "prefill_time_count": ("trtllm_request_prefill_time_seconds_count",),
    "decode_time_sum": ("trtllm_request_decode_time_seconds_sum",),
    "decode_time_count": ("trtllm_request_decode_time_seconds_count",),
    "spec_draft_tokens": ("trtllm_spec_decode_drafted_tokens",),
    "spec_accepted_tokens": ("trtllm_spec_decode_accepted_tokens",),
}
_ON_REQUEST_END = "as of the last step before some request ended: the server looks only then"
_NOTES = {
    "running": _ON_REQUEST_END,
    "waiting": _ON_REQUEST_END,
    "kv_usage": _ON_REQUEST_END,
    "prompt_tokens": "counted when a request ends",
    "generation_tokens": "counted when a request ends",
    "ttft": "by the engine's clock, from its own arrival to its first token: the front end's work is not in it",
    "tpot": "one value a request, by the engine's clock",
    "queue_time": "from the engine's arrival to the first step that the request is part of",
}


def _reader() -> MetricsReader:
    return _read_prometheus


def _read_prometheus(body: bytes) -> Mapping[str, float]:
    """A page without a word is a server that has answered nothing yet."""
    metrics = parse_metrics(body) if body.strip() else Metrics({})
    if metrics.series and not any(name.startswith("trtllm_") for name in metrics.series):
        raise ValueError("no metric of TensorRT-LLM's in /prometheus/metrics")
    return metrics.select({**OF_ITERATIONS, **OF_REQUESTS})


def _ask_text_ids(model: str, text: str) -> HttpRequest:
    """Current versions only. Special tokens are added as /v1/completions adds them."""
    return post_json("/_internal/tokenize", {"prompt": text})


def _read_models(status: int, body: bytes) -> Mapping[str, Any]:
    """Nothing says how long the context is; a longer answer than it has room for is cut short."""
    cards = model_list(json_answer("/v1/models", status, body))
    return {
        "engine": "tensorrt_llm" if any(card.get("owned_by") == "tensorrt_llm" for card in cards) else None,
        "models": tuple(str(card["id"]) for card in cards),
    }


def _read_version(status: int, body: bytes) -> Mapping[str, Any]:
    return {"version": json_answer("/version", status, body).get("version")} if status == 200 else {}


def _command(words: Sequence[str], host: str, port: int) -> Sequence[str]:
    """`serve` is what it does where no command is named; older versions know none."""
    return ("trtllm-serve", *words, "--host", host, "--port", str(port))


class TrtllmAdapter(BaseAdapter):
    name = "trtllm"
    about = "TensorRT-LLM's OpenAI server (trtllm-serve)"
    default_url = "http://localhost:8000"
    endpoints: tuple[Endpoint, ...] = ("chat", "completions")
    promised = Promises(
        fixed_length=True,
        exact_counts=True,
        cached_tokens=True,
        per_chunk_counts=True,
        token_id_prompts=True,
    )
    tokenization = Tokenization(_ask_text_ids, None, token_ids("/_internal/tokenize"))
    metrics = (MetricsSource("/prometheus/metrics", _reader, notes=_NOTES), ITERATIONS)
    launcher = Launcher(_command)
    signature = Signature(HttpRequest("GET", "/v1/models"), owned_by("tensorrt_llm"))

    def probes(self) -> Sequence[Probe]:
        return (
            Probe("readiness", HttpRequest("GET", "/health"), health_of("trtllm-serve"), required=True),
            Probe("models", HttpRequest("GET", "/v1/models"), _read_models, required=True),
            Probe("version", HttpRequest("GET", "/version"), _read_version),
        )

    def encode(self, request: Request, options: Options) -> HttpRequest:
        """`max_tokens` is known to every version and to both routes, and must not stand beside its successor.

        An end that is ignored is no token any more, so `min_tokens` has nothing left to hold back.
        """
        body = common_body(request, options)
        body["stream_options"]["continuous_usage_stats"] = True
        if request.asked_output_tokens is not None:
            if "max_completion_tokens" not in options.extra_body:
                body["max_tokens"] = request.asked_output_tokens
            if options.force_output_length:
                body["ignore_eos"] = True
        return post(body, options)

    def decoder(self, endpoint: Endpoint) -> Decoder:
        """No error event ever comes: a failure inside a stream breaks the connection."""
        return ChunkDecoder()


ADAPTER = TrtllmAdapter()
