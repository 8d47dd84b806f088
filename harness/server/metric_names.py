"""The one vocabulary of server metrics, which each adapter maps its server's own names onto."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class ServerMetric:
    """A level is what is at one moment, a counter what has come together since the server started.

    `replicas` says what several replicas' values are together: their sum, or the largest of them.
    """

    unit: str
    kind: Literal["level", "counter"]
    about: str
    replicas: Literal["sum", "max"] = "sum"


def _histograms(**of: str) -> dict[str, ServerMetric]:
    """A histogram is two counters: what was observed, added up, and how often; their growth gives a mean."""
    found = {}
    for name, about in of.items():
        found[f"{name}_sum"] = ServerMetric("s", "counter", f"{about}, added up.")
        found[f"{name}_count"] = ServerMetric("", "counter", f"How many of them `{name}_sum` holds.")
    return found


SERVER_METRICS: Mapping[str, ServerMetric] = {
    "running": ServerMetric("requests", "level", "Requests in the batch."),
    "waiting": ServerMetric("requests", "level", "Requests in the queue."),
    "kv_usage": ServerMetric("share", "level", "Share of the KV memory in use, the fullest replica's.", "max"),
    "preemptions": ServerMetric("times", "counter", "Requests that lost their KV memory and were computed anew."),
    "prefix_queries": ServerMetric("tok", "counter", "Prompt tokens looked up in the prefix cache."),
    "prefix_hits": ServerMetric("tok", "counter", "Prompt tokens found there."),
    "prompt_tokens": ServerMetric("tok", "counter", "Prompt tokens of the requests that were begun."),
    "prompt_tokens_cached": ServerMetric("tok", "counter", "Those of them that came from the prefix cache."),
    "generation_tokens": ServerMetric("tok", "counter", "Output tokens."),
    "requests_finished": ServerMetric("requests", "counter", "Requests that ended, as far as the server counts them."),
    "requests_failed": ServerMetric("requests", "counter", "Requests that ended with an error."),
    "requests_aborted": ServerMetric("requests", "counter", "Requests that their client gave up."),
    "requests_rejected": ServerMetric("requests", "counter", "Requests that were refused at the door."),
    **_histograms(
        ttft="Time to first token",
        itl="Time between two steps that gave a request tokens",
        tpot="Time per output token, one value a request",
        e2e="Time from a request's arrival to its last token",
        queue_time="Time in the queue",
        prefill_time="Time from leaving the queue to the first token",
        decode_time="Time from the first token to the last",
    ),
    "iterations": ServerMetric("steps", "counter", "Steps of the engine."),
    "iteration_tokens": ServerMetric("tok", "counter", "Tokens, of prompts and outputs, that they computed."),
    "est_flops_per_gpu": ServerMetric("FLOP", "counter", "What the server estimates that each GPU computed."),
    "est_read_bytes_per_gpu": ServerMetric("B", "counter", "What it estimates that each GPU read from its memory."),
    "est_write_bytes_per_gpu": ServerMetric("B", "counter", "What it estimates that each GPU wrote to its memory."),
    "spec_drafts": ServerMetric("drafts", "counter", "Drafts of speculative decoding."),
    "spec_draft_tokens": ServerMetric("tok", "counter", "Tokens that were drafted."),
    "spec_accepted_tokens": ServerMetric("tok", "counter", "Those of them that were accepted."),
}

LEVELS = frozenset(name for name, metric in SERVER_METRICS.items() if metric.kind == "level")
