"""trtllm-serve's /metrics: no Prometheus page, but a JSON list of the engine's steps, each of which is told once.

An answer holds the steps since the last one, and waits up to two seconds where there are none. From TensorRT-LLM's
cpp/tensorrt_llm/executor/jsonSerialization.cpp and tensorrt_llm/executor/base_worker.py. Its queue latency is left
out: the C++ engine tells milliseconds under that name, the PyTorch one seconds.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from servemark.harness.types import MetricsReader, MetricsSource

NOTES = {
    "running": "requests that the engine has taken in, as of its last step",
    "waiting": "requests that it has not, as of its last step",
    "iteration_tokens": "tokens of prompts, one for each request that generates, and its drafts",
    "prefix_queries": "whole blocks",
    "prefix_hits": "whole blocks",
}


class _Blocks(msgspec.Struct, gc=False):
    maxNumBlocks: int = 0
    usedNumBlocks: int = 0
    tokensPerBlock: int = 0
    reusedBlocks: int = 0
    missedBlocks: int = 0


class _Batch(msgspec.Struct, gc=False):
    numGenRequests: int = 0
    numCtxTokens: int = 0


class _Drafts(msgspec.Struct, gc=False):
    numDraftTokens: int = 0
    numAcceptedTokens: int = 0
    numRequestsWithDraftTokens: int = 0


class _Step(msgspec.Struct, gc=False):
    """The ranks, by their newer name and their older one, are parts of an engine that is split by requests."""

    numActiveRequests: int
    numQueuedRequests: int = 0
    numCompletedRequests: int = 0
    attentionDpRank: int = 0
    rank: int = 0
    kvCacheStats: _Blocks | None = None
    inflightBatchingStats: _Batch | None = None
    specDecodingStats: _Drafts | None = None


_decode = msgspec.json.Decoder(list[_Step]).decode


class IterationReader:
    """Adds up what steps did over all answers; levels are the last step's of each rank, also where none is new."""

    def __init__(self) -> None:
        self._last: dict[int, _Step] = {}
        self._steps: dict[int, int] = {}
        self._sums: dict[str, float] = {}

    def __call__(self, body: bytes) -> Mapping[str, float]:
        try:
            steps = _decode(body)
        except msgspec.DecodeError:
            raise ValueError("no list of the engine's steps in /metrics") from None
        for step in steps:
            self._take(step)
        return {**self._sums, **self._levels()} if self._last else {}

    def _take(self, step: _Step) -> None:
        rank = max(step.attentionDpRank, step.rank)
        self._last[rank] = step
        self._steps[rank] = self._steps.get(rank, 0) + 1
        for name, value in _done(step):
            self._sums[name] = self._sums.get(name, 0.0) + value

    def _levels(self) -> dict[str, float]:
        last = self._last.values()
        levels: dict[str, float] = {
            "running": sum(step.numActiveRequests for step in last),
            "waiting": sum(step.numQueuedRequests for step in last),
            "iterations": max(self._steps.values()),
        }
        caches = [step.kvCacheStats for step in last if step.kvCacheStats is not None]
        if any(cache.maxNumBlocks for cache in caches):
            levels["kv_usage"] = max(cache.usedNumBlocks / cache.maxNumBlocks for cache in caches if cache.maxNumBlocks)
        if caches:  # the engine counts these from its start
            hits = sum(cache.reusedBlocks * cache.tokensPerBlock for cache in caches)
            levels["prefix_hits"] = hits
            levels["prefix_queries"] = hits + sum(cache.missedBlocks * cache.tokensPerBlock for cache in caches)
        return levels


def _done(step: _Step) -> list[tuple[str, int]]:
    """What one step adds to the counters."""
    done = [("requests_finished", step.numCompletedRequests)]
    batch, drafts = step.inflightBatchingStats, step.specDecodingStats
    if batch is not None:
        drafted = drafts.numDraftTokens if drafts is not None else 0
        done.append(("iteration_tokens", batch.numCtxTokens + batch.numGenRequests + drafted))
    if drafts is not None:
        done.append(("spec_drafts", drafts.numRequestsWithDraftTokens))
        done.append(("spec_draft_tokens", drafts.numDraftTokens))
        done.append(("spec_accepted_tokens", drafts.numAcceptedTokens))
    return done


def _reader() -> MetricsReader:
    return IterationReader()


ITERATIONS = MetricsSource("/metrics", _reader, draining=True, notes=NOTES)
