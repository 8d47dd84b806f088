"""Counters and histograms of the engine, in the vocabulary of vLLM's metrics. metrics.py writes them as text."""

from __future__ import annotations

from bisect import bisect_left

# Upper bounds as a current vLLM exposes them, so that readers of its metrics find what they know.
LATENCY_S = (0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680)
TTFT_S = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75),
    *(1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640, 2560),
)
ITL_S = (
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75),
    *(1, 2.5, 5, 7.5, 10, 20, 40, 80),
)
STEP_TOKENS = (1, *(2**power for power in range(3, 15)))
LENGTHS = tuple(digit * 10**power for power in range(6) for digit in (1, 2, 5))
# Our own: how late the process ended a step.
LATENESS_S = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5)


class Histogram:
    """Counts per bucket (not cumulative), with the sum of what was observed."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        self.counts[bisect_left(self.bounds, value)] += times
        self.sum += value * times

    @property
    def count(self) -> int:
        return sum(self.counts)


class EngineStats:
    """Totals since the start. Tokens, requests, seconds; FLOPs and bytes are of each GPU."""

    def __init__(self) -> None:
        self.prompt_tokens = 0
        self.cached_prompt_tokens = 0
        self.generation_tokens = 0
        self.prefix_queries = 0
        self.prefix_hits = 0
        self.preemptions = 0
        self.steps = 0
        self.first_token_steps = 0
        self.flops = 0.0
        self.read_bytes = 0.0
        self.written_bytes = 0.0
        self.finished = {"stop": 0, "length": 0, "abort": 0, "error": 0}
        self.ttft_s = Histogram(TTFT_S)
        self.itl_s = Histogram(ITL_S)
        self.tpot_s = Histogram(ITL_S)
        self.e2e_s = Histogram(LATENCY_S)
        self.queue_s = Histogram(LATENCY_S)
        self.prefill_s = Histogram(LATENCY_S)
        self.decode_s = Histogram(LATENCY_S)
        self.inference_s = Histogram(LATENCY_S)
        self.step_tokens = Histogram(STEP_TOKENS)
        self.request_prompt_tokens = Histogram(LENGTHS)
        self.request_generation_tokens = Histogram(LENGTHS)
