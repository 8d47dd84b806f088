"""Watches GPUs beside a run: the protocol, and the one that reads this machine's GPUs in a process of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from servemark.harness.types import GpuSample

LEAST_PERIOD_S = 0.1


class GpuWatch(Protocol):
    """GPUs beside a run. What goes wrong with one is a sentence in its facts, never an exception."""

    def begin(self) -> None:
        """Starts, and waits for the first reading; bounded. Without one the facts say why."""

    async def run(self) -> None:
        """Hands samples on until cancelled. What `on_sample` raises is not caught."""

    def end(self) -> None:
        """The last reading, and the end of what was started. May be called again, and without `begin`."""

    def facts(self) -> dict[str, Any]:
        """What was read, on what, and what is missing and why; for run.json."""


def local_watch(period_s: float, chosen: Sequence[str], on_sample: Callable[[GpuSample], None]) -> GpuWatch:
    """Of this machine's GPUs those `chosen` by index or UUID (also its beginning), or all of them.

    CUDA_VISIBLE_DEVICES is not looked at: it is of this process, and the server has its own.
    """
    if period_s < LEAST_PERIOD_S:
        raise ValueError(f"GPUs are read every {LEAST_PERIOD_S:g} s at most often, not every {period_s:g} s")
    from servemark.harness.gpu.local import LocalWatch

    return LocalWatch(period_s, chosen, on_sample)
