"""SGLang: its own route /generate, and its OpenAI routes.

From the server's source, python/sglang/srt/entrypoints/{http_server,openai/protocol,openai/serving_chat}.py and
python/sglang/srt/observability/metrics_collector.py.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import replace
from typing import Any, Self

import msgspec

from servemark.adapters.base import (
    BaseAdapter,
    error_text,
    excerpt,
    health_of,
    json_answer,
    model_list,
    owned_by,
    post_json,
    text_of,
    token_ids,
)
from servemark.adapters.openai_chunks import DONE, ChunkDecoder, common_body, post
from servemark.harness.server.prometheus import parse_metrics
from servemark.harness.types import (
    Decoder,
    Delta,
    Endpoint,
    ErrorKind,
    HttpRequest,
    Launcher,
    MetricsReader,
    MetricsSource,
    Options,
    Outcome,
    Probe,
    Promises,
    Request,
    ServerFacts,
    Signature,
    Tokenization,
    Usage,
)

# What the server says of itself that explains a result. It says everything, its key too: no more may be taken over.
_SETTINGS = (
    "attention_backend",
    "chunked_prefill_size",
    "disable_overlap_schedule",
    "disable_radix_cache",
    "dp_size",
    "dtype",
    "enable_cache_report",
    "ep_size",
    "incremental_streaming_output",
    "kv_cache_dtype",
    "max_prefill_tokens",
    "max_running_requests",
    "max_total_num_tokens",
    "mem_fraction_static",
    "model_path",
    "page_size",
    "pp_size",
    "quantization",
    "schedule_policy",
    "speculative_algorithm",
    "speculative_num_draft_tokens",
    "stream_interval",
    "tp_size",
)

METRICS: Mapping[str, tuple[str, ...]] = {
    "running": ("sglang:num_running_reqs",),
    "waiting": ("sglang:num_queue_reqs",),
    "kv_usage": ("max(sglang:token_usage)",),
    "preemptions": ("sglang:num_retracted_requests",),
    "prompt_tokens": ("sglang:prompt_tokens",),
    "prompt_tokens_cached": ("sglang:cached_tokens",),
    "prefix_queries": ("sglang:prompt_tokens",),  # every prompt is looked up
    "prefix_hits": ("sglang:cached_tokens",),
    "generation_tokens": ("sglang:generation_tokens",),
    "requests_finished": ("sglang:num_requests",),
    "requests_aborted": ("sglang:num_aborted_requests",),
    "ttft_sum": ("sglang:time_to_first_token_seconds_sum",),
    "ttft_count": ("sglang:time_to_first_token_seconds_count",),
    "itl_sum": ("sglang:inter_token_latency_seconds_sum", "sglang:time_per_output_token_seconds_sum"),
    "itl_count": ("sglang:inter_token_latency_seconds_count", "sglang:time_per_output_token_seconds_count"),
    "e2e_sum": ("sglang:e2e_request_latency_seconds_sum",),
    "e2e_count": ("sglang:e2e_request_latency_seconds_count",),
    "queue_time_sum": ("sglang:queue_time_seconds_sum",),
    "queue_time_count": ("sglang:queue_time_seconds_count",),
    "iterations": ("sglang:cuda_graph_passes",),  # with one and without
    "spec_drafts": ("sglang:spec_verify_calls",),
    # With --enable-mfu-metrics.
    "est_flops_per_gpu": ("sglang:estimated_flops_per_gpu",),
    "est_read_bytes_per_gpu": ("sglang:estimated_read_bytes_per_gpu",),
    "est_write_bytes_per_gpu": ("sglang:estimated_write_bytes_per_gpu",),
}
_NOTES = {
    "prompt_tokens": "counted when a request ends",
    "generation_tokens": "counted when a request ends",
    "ttft": "from when the front end takes the request up to when it has the first output",
    "itl": "one value for each token: a step that gave several is shared out among them",
    "e2e": "from when the front end takes the request up to when it has the last output",
}


def _reader() -> MetricsReader:
    return _read_metrics


def _read_metrics(body: bytes) -> Mapping[str, float]:
    """The counter of cached tokens is there from the first hit on; before it there was none."""
    values = parse_metrics(body).select(METRICS)
    if not values:
        raise ValueError("no metric of SGLang's in /metrics")
    for hits, of in (("prompt_tokens_cached", "prompt_tokens"), ("prefix_hits", "prefix_queries")):
        if of in values:
            values.setdefault(hits, 0.0)
    return values


def _ask_text_ids(model: str, text: str) -> HttpRequest:
    """Current versions only. Special tokens as the server's own tokenizer adds them to a prompt."""
    return post_json("/tokenize", {"model": model, "prompt": text, "add_special_tokens": True})


def _read_models(status: int, body: bytes) -> Mapping[str, Any]:
    cards = model_list(json_answer("/v1/models", status, body))
    lengths = [length for card in cards if isinstance(length := card.get("max_model_len"), int)]
    return {
        "engine": "sglang" if any(card.get("owned_by") == "sglang" for card in cards) else None,
        "models": tuple(str(card["id"]) for card in cards),
        "context_tokens": min(lengths, default=None),
    }


def _read_info(status: int, body: bytes) -> Mapping[str, Any]:
    try:
        info = json_answer("/server_info", status, body)
    except ValueError:
        return {}
    return {
        "version": info.get("version"),
        "settings": {name: info[name] for name in _SETTINGS if isinstance(info.get(name), str | int | float)},
    }


def _command(words: Sequence[str], host: str, port: int) -> Sequence[str]:
    """Its command where there is one; older versions are a module of the Python whose environment is active."""
    program = ("sglang", "serve") if shutil.which("sglang") else ("python3", "-m", "sglang.launch_server")
    model = () if words and words[0].startswith("-") else ("--model-path",)
    return (*program, *model, *words, "--host", host, "--port", str(port), "--enable-metrics")


class SglangAdapter(BaseAdapter):
    name = "sglang"
    about = "SGLang's server"
    default_url = "http://localhost:30000"
    endpoints: tuple[Endpoint, ...] = ("generate", "chat", "completions")
    promised = Promises(
        fixed_length=True,
        exact_counts=True,
        cached_tokens=True,
        per_chunk_counts=True,
        token_id_prompts=True,
    )
    tokenization = Tokenization(_ask_text_ids, None, token_ids("/tokenize"))
    metrics = (MetricsSource("/metrics", _reader, notes=_NOTES),)
    launcher = Launcher(_command)
    # It says that it did nothing, by status 400 in current versions, while requests are running.
    cache_reset = HttpRequest("POST", "/flush_cache")
    signature = Signature(HttpRequest("GET", "/v1/models"), owned_by("sglang"))
    reports_cache = False
    """The OpenAI routes tell cached tokens only with --enable-cache-report."""

    def probes(self) -> Sequence[Probe]:
        return (
            # Some versions answer it by generating one token, unless they are busy anyway.
            Probe("readiness", HttpRequest("GET", "/health"), health_of("SGLang"), required=True),
            Probe("models", HttpRequest("GET", "/v1/models"), _read_models, required=True),
            Probe("settings, by their older name", HttpRequest("GET", "/get_server_info"), _read_info),
            Probe("settings", HttpRequest("GET", "/server_info"), _read_info),
        )

    def settled(self, facts: ServerFacts, model: str) -> Self:
        known = copy(self)
        known.reports_cache = facts.settings.get("enable_cache_report") is True
        return known

    def promises(self, endpoint: Endpoint) -> Promises:
        own = super().promises(endpoint)
        return own if endpoint == "generate" else replace(own, cached_tokens=self.reports_cache)

    def encode(self, request: Request, options: Options) -> HttpRequest:
        """`min_tokens` is not sent: the end is ignored anyway, and the engine would work on it at each step."""
        length = request.asked_output_tokens
        forced = {"ignore_eos": True} if length is not None and options.force_output_length else {}
        if options.endpoint == "generate":
            return _generate(request, forced, options)
        body = {**common_body(request, options), **forced}
        body["stream_options"]["continuous_usage_stats"] = True
        if length is not None:
            body["max_completion_tokens" if options.endpoint == "chat" else "max_tokens"] = length
        return post(body, options)

    def decoder(self, endpoint: Endpoint) -> Decoder:
        return GenerateDecoder() if endpoint == "generate" else ChunkDecoder()


def _generate(request: Request, forced: Mapping[str, Any], options: Options) -> HttpRequest:
    """`sampling_params` of the user's own go over ours, one by one."""
    wanted: dict[str, Any] = {
        "max_new_tokens": request.asked_output_tokens,
        "temperature": options.temperature,
        "top_p": options.top_p,
    }
    sampling = {name: value for name, value in wanted.items() if value is not None} | dict(forced)
    extra = options.extra_body
    theirs = extra.get("sampling_params", {})
    merged = sampling | theirs if isinstance(theirs, dict) else theirs
    prompt = text_of(request)
    named = {"text" if isinstance(prompt, str) else "input_ids": prompt}
    return post_json("/generate", {**named, "stream": True, **extra, "sampling_params": merged})


class _Finish(msgspec.Struct, gc=False):
    type: str | None = None
    message: Any = None


class _Meta(msgspec.Struct, gc=False):
    completion_tokens: int
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None
    finish_reason: _Finish | None = None
    id: Any = None


class _Event(msgspec.Struct, gc=False):
    meta_info: _Meta | None = None
    error: Any = None


class _Said(_Event, gc=False):
    """An event whose text is wanted too. `output_ids` are the text's tokens."""

    text: str | None = None
    output_ids: list[int] | None = None


_decode = msgspec.json.Decoder(_Event).decode
_decode_said = msgspec.json.Decoder(_Said).decode
_NOTHING = Delta()


class GenerateDecoder:
    """Reads /generate by its counts: whether text comes whole each time or in pieces matters to an answer's text only.

    Errors come under status 200 as events, and [DONE] comes after them too.
    """

    __slots__ = ("_done", "_error", "_meta", "answer")

    def __init__(self) -> None:
        self.answer: list[str] | None = None
        self._meta: _Meta | None = None
        self._error: str | None = None
        self._done = False

    def feed(self, event: bytes) -> Delta:
        if event.startswith(b"[") and event.rstrip() == DONE:
            self._done = True
            return _NOTHING
        told = _decode(event) if self.answer is None else _decode_said(event)
        if told.error is not None:
            return self._failed(error_text(told.error))
        if told.meta_info is None:
            raise ValueError(f"no event of /generate: {excerpt(event)}")
        if self.answer is not None and isinstance(told, _Said):
            _listen(self.answer, told, told.meta_info.completion_tokens)
        return self._took(told.meta_info)

    def finish(self, clean: bool) -> Outcome:
        meta, (error, detail) = self._meta, self._ending(clean)
        if meta is None:
            return Outcome(error=error, error_detail=detail)
        usage = Usage(
            prompt_tokens=meta.prompt_tokens,
            output_tokens=meta.completion_tokens,
            reasoning_tokens=meta.reasoning_tokens or None,
            cached_tokens=meta.cached_tokens,
            source="usage",
        )
        reason = meta.finish_reason.type if meta.finish_reason else None
        return Outcome(usage, reason, None if meta.id is None else str(meta.id), error, detail)

    def _took(self, meta: _Meta) -> Delta:
        before, self._meta = self._meta, meta
        if meta.finish_reason is not None and meta.finish_reason.type == "abort":
            return self._failed(str(meta.finish_reason.message or "the server gave the request up"))
        new = meta.completion_tokens - (before.completion_tokens if before else 0)
        return Delta(carries=True, answer=True, tokens=new) if new > 0 else _NOTHING

    def _failed(self, text: str) -> Delta:
        self._error = self._error or text
        return Delta(error=text)

    def _ending(self, clean: bool) -> tuple[ErrorKind | None, str | None]:
        if self._error is not None:
            return "server_error", self._error[:500]
        if not (self._done or clean):
            return "incomplete", "the stream ended without [DONE]"
        if self._meta is not None and self._meta.finish_reason is None:
            return "incomplete", "the stream ended before the event that has a finish_reason"
        return None, None


def _listen(answer: list[str], told: _Said, tokens: int) -> None:
    """An event has all tokens so far, and their text, or its own alone."""
    if not told.text:
        return
    whole = len(told.output_ids) == tokens if told.output_ids is not None else told.text.startswith("".join(answer))
    if whole:
        answer.clear()
    answer.append(told.text)


ADAPTER = SglangAdapter()
