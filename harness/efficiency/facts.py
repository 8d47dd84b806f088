"""The figures of a run that say what binds it and what to do about it; None where one is not known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Shares are of 1; a ratio is a measured value over its floor. Batches are of the whole deployment."""

    # how busy
    mbu: float | None = None
    mbu_how: str = "modelled"
    mfu: float | None = None
    busy: float | None = None
    """Share of the window that the floors of all that was done add up to."""
    prefill_share: float | None = None
    """Share of that which prompts take."""
    weights_share: float | None = None
    kv_share: float | None = None
    """Shares of the modelled bytes: the weights, and the KV cache that is read."""
    throttled_share: float | None = None

    # the batch
    batch: float | None = None
    """Requests that a step of one server gives tokens."""
    running: float | None = None
    largest_batch: float | None = None
    waiting: float | None = None
    waiting_share: float | None = None
    kv_usage: float | None = None
    preemptions: float | None = None
    requests: int = 0
    clients: int | None = None
    """Of a closed loop."""
    rps: float | None = None
    offered_rps: float | None = None
    overloaded: bool = False

    # the requests
    prompt: float | None = None
    cached_share: float | None = None
    followed_up: float = 0.0
    """Share of requests that go on with a conversation."""
    tpot_ratio: float | None = None
    tpot_binding: str | None = None
    ttft_ratio: float | None = None
    icl_p50_ms: float | None = None
    icl_p99_ms: float | None = None

    # the deployment
    weights: str | None = None
    weight_bits: float | None = None
    kv_bytes: float | None = None
    """Of an element of the KV cache."""
    compute: str | None = None
    narrower: str | None = None
    """A dtype that the GPU multiplies faster than the one the model is computed in."""
    gpus_per_server: int = 1
    memory_share: float | None = None
    """Share of a GPU's memory that the weights take."""
    drafts: bool = False
    accepted: float | None = None
    """Share of drafted tokens; None without speculation, and where the server does not tell."""
    experts: bool = False

    checks: Mapping[str, str] = field(default_factory=dict)
    """Codes of the verdict."""
