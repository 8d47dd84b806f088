"""The router's own figures, under TGI's names."""

from __future__ import annotations

from collections.abc import Callable

from servemark.adapters.sim.engine import EngineRequest
from servemark.adapters.sim.exposition import Page
from servemark.adapters.sim.simulation import Simulation
from servemark.adapters.sim.stats import LATENCY_S, LENGTHS, Histogram


class Figures:
    """The router's own figures, and its page of metrics, on which a metric stands once it has happened."""

    def __init__(self, sim: Simulation) -> None:
        self._sim = sim
        self.requests = 0
        self.failures = {"validation": 0, "overloaded": 0, "generation": 0}
        self.successes = 0
        self.input_length, self.max_new_tokens = Histogram(LENGTHS), Histogram(LENGTHS)
        self._times = {
            name: Histogram(LATENCY_S)
            for name in ("duration", "queue_duration", "inference_duration", "mean_time_per_token_duration")
        }
        self._generated = Histogram(LENGTHS)

    def succeeded(self, request: EngineRequest) -> None:
        admitted_ns = request.admitted_ns or request.arrival_ns
        work_s = (request.last_token_ns - admitted_ns) / 1e9
        self.successes += 1
        self._times["duration"].observe((request.last_token_ns - request.arrival_ns) / 1e9)
        self._times["queue_duration"].observe((admitted_ns - request.arrival_ns) / 1e9)
        self._times["inference_duration"].observe(work_s)
        self._times["mean_time_per_token_duration"].observe(work_s / request.produced)
        self._generated.observe(request.produced)

    def text(self) -> bytes:
        page, engine = Page(), self._sim.engine
        held = sum(len(request.prompt) + request.max_tokens for request in engine.running)
        page.gauge("tgi_queue_size", "Requests in the queue", len(engine.waiting))
        page.gauge("tgi_batch_current_size", "Requests in the batch", len(engine.running))
        page.gauge("tgi_batch_current_max_tokens", "Tokens that they may come to", held)
        page.gauge("tgi_batch_max_total_tokens", "Tokens that a batch may come to", engine.config.kv_tokens)
        self._counters(page)
        for name, histogram in self._times.items():
            _happened(page.histogram, f"tgi_request_{name}", "Seconds", histogram)
        _happened(page.histogram, "tgi_request_input_length", "Prompt lengths", self.input_length)
        _happened(page.histogram, "tgi_request_max_new_tokens", "Longest answers asked", self.max_new_tokens)
        _happened(page.histogram, "tgi_request_generated_tokens", "Answer lengths", self._generated)
        return page.text()

    def _counters(self, page: Page) -> None:
        stats = self._sim.engine.stats
        if self.requests:
            page.counter("tgi_request_count", "Requests", self.requests)
        if self.successes:
            page.counter("tgi_request_success", "Requests that were answered", self.successes)
        failures = {**self.failures, "dropped": stats.finished["abort"]}
        if told := {f'err="{kind}"': count for kind, count in failures.items() if count}:
            page.counter("tgi_request_failure", "Requests that failed, by kind", told)
        steps = {"prefill": stats.first_token_steps, "decode": stats.steps - stats.first_token_steps}
        if told := {f'method="{method}"': count for method, count in steps.items() if count}:
            page.counter("tgi_batch_inference_count", "Steps of the engine", told)


def _happened(add: Callable[[str, str, Histogram], None], name: str, about: str, histogram: Histogram) -> None:
    if histogram.count:
        add(name, about, histogram)
