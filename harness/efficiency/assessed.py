"""One run as efficiency sees it: what was recorded, what it ran on, and what is worked out of the two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from servemark.harness.efficiency.load import Load, load_of
from servemark.harness.efficiency.measured import Watched, mean_of, serving, watched
from servemark.harness.efficiency.modelled import Modelled, Modeller, edges_of
from servemark.harness.efficiency.readings import Level, grown, level, pulled_in
from servemark.harness.efficiency.seen import Seen, seen
from servemark.harness.efficiency.speculation import Speculation, speculation
from servemark.harness.efficiency.steps import Steps, steps
from servemark.harness.efficiency.told import Told, told
from servemark.harness.figures.frame import Frame, Window
from servemark.harness.hardware.deployed import Deployed
from servemark.harness.server.samples import whole
from servemark.harness.types import GpuSample, ServerSample

FINE = 10
LEAST_IDLE_S = 2.0
"""NVML's utilisation is a mean over as much as a second, so a short burst may not show."""


@dataclass(frozen=True)
class Assessed:
    """`metrics` and `checks` are those of run.json; `clients` is the concurrency of a closed loop.

    `facts` are the GPU watch's. Of `samples` the readings of the whole deployment count.
    """

    frame: Frame
    window: Window
    samples: Sequence[ServerSample]
    gpu_samples: Sequence[GpuSample]
    deployment: Deployed
    facts: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    checks: Sequence[Mapping[str, Any]] = ()
    clients: int | None = None
    whole_run: bool = False
    """`window` is the whole run, for want of a steady window."""

    @cached_property
    def told_by_server(self) -> list[ServerSample]:
        """For counters."""
        return pulled_in(whole(self.samples), self._in_flight)

    @cached_property
    def _in_flight(self) -> Window:
        """From the first request to the end of the last."""
        if not len(self.frame):
            return self.window
        run = self.frame.whole_window()
        return Window(min(run.start_ns, self.window.start_ns), max(run.end_ns, self.window.end_ns))

    @cached_property
    def speculation(self) -> Speculation:
        return speculation(self.told_by_server, self.window)

    @cached_property
    def cached_share(self) -> float | None:
        """Of all prompt tokens, by the server's counters."""
        for part, total in (("prompt_tokens_cached", "prompt_tokens"), ("prefix_hits", "prefix_queries")):
            cached, of = grown(self.told_by_server, part, self.window), grown(self.told_by_server, total, self.window)
            if cached is not None and of:
                return min(1.0, cached / of)
        return None

    @property
    def cached_told(self) -> bool:
        """Somebody says how many tokens of the prompts were cached: the answers, or the server's counters."""
        return self.cached_share is not None or bool((self.frame["cached_tokens"] >= 0).any())

    @cached_property
    def seen(self) -> Seen:
        return seen(self.frame, self.cached_share)

    @cached_property
    def steps(self) -> Steps | None:
        return steps(self.frame, self.told_by_server, self.window, self.deployment.layout)

    @cached_property
    def modeller(self) -> Modeller | None:
        arithmetic = self.deployment.arithmetic
        return None if arithmetic is None else Modeller(arithmetic, self.seen, self.steps, self.speculation)

    @cached_property
    def total(self) -> Modelled | None:
        """The window as one bin, added up from short ones: how many experts a step reads hangs on its own batch."""
        if self.modeller is None or self.window.seconds <= 0:
            return None
        return self.modeller.over(edges_of(self.window, self._fine)).total()

    @property
    def _fine(self) -> int:
        """Bins of a second that hold several chunks of each answer, or a chunk of several tokens were one step's."""
        gap_ms = self.value("icl", "p50")
        return FINE if not gap_ms else int(min(FINE, max(1, 250 // gap_ms)))

    @cached_property
    def load(self) -> Load | None:
        if self.total is None:
            return None
        layout, prefilled = self.deployment.layout, self.seen.prefilled
        return load_of(self.frame, self.window, self.total, prefilled, layout, self.speculation)

    def over(self, window: Window) -> Modelled | None:
        """Another span of the run, in bins."""
        if self.modeller is None or window.seconds <= 0:
            return None
        counted = steps(self.frame, self.told_by_server, window, self.deployment.layout)
        return replace(self.modeller, steps=counted).over(edges_of(window))

    @cached_property
    def watched(self) -> list[Watched]:
        return watched(self.gpu_samples, self.window)

    @cached_property
    def serving(self) -> Sequence[Watched]:
        """The GPUs of the deployment, as far as they were read."""
        return () if self.strangers else serving(self._read, self.deployment.gpus)

    @cached_property
    def _read(self) -> list[Watched]:
        return [each for each in self.watched if each.samples]

    @cached_property
    def strangers(self) -> bool:
        """The GPUs that were read did nothing at all while answers came: an address here may lead elsewhere."""
        told = [each.mean(name) for each in self._read for name in ("utilisation", "sm_active", "dram_active")]
        known = [mean for mean in told if mean is not None]
        return bool(known) and not any(known) and self.window.seconds > LEAST_IDLE_S and bool(self.frame.ok.any())

    def measured(self, field_name: str) -> float | None:
        return mean_of(self.serving, field_name)

    @cached_property
    def told(self) -> Told:
        return told(self.told_by_server, self.window, self.deployment.layout)

    def level(self, name: str) -> Level | None:
        """A reading after the last request is one of an idle server, and says nothing of the time before it."""
        samples = [each for each in whole(self.samples) if each.at_ns <= self._in_flight.end_ns]
        return level(samples, name, self.window)

    def grown(self, name: str) -> float | None:
        return grown(self.told_by_server, name, self.window)

    def value(self, metric: str, key: str = "value") -> float | None:
        found = self.metrics.get(metric, {}).get(key)
        return float(found) if isinstance(found, int | float) and not isinstance(found, bool) else None

    def rate(self, metric: str) -> float | None:
        """Per second of the window."""
        return self.value(f"{metric}_run" if self.whole_run else metric)

    def without_model(self) -> Assessed:
        """With nothing in it that is modelled."""
        return replace(self, deployment=replace(self.deployment, model=None, model_lacks=None))

    def check(self, code: str) -> str | None:
        return next((each.get("severity") for each in self.checks if each.get("code") == code), None)
