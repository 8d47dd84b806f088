"""Reasons that lie with the GPUs themselves: were they slowed down, and were they there to the end?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

from servemark.harness.clock import SECOND
from servemark.harness.figures.percent import share as percent
from servemark.harness.gpu.reasons import HARMFUL, mask, reasons
from servemark.harness.plaintext import one_line
from servemark.harness.verdict.evidence import Evidence, Finding, graded, invalid, passed, reason, warning

_SLOWDOWN = mask("hardware", "thermal")
_POWER = mask("power")


@reason("gpu_throttled")
def gpu_throttled(evidence: Evidence) -> Finding:
    """A GPU's clocks were held down by heat, its power supply or its power limit."""
    slowed, capped, told = _worst(evidence, _SLOWDOWN), _worst(evidence, _POWER), _bits(evidence)
    if not evidence.gpu:
        return passed("No GPU was read.")
    if slowed is None or capped is None:
        return passed("No GPU that was read tells whether its clocks are held down.")
    limits = evidence.thresholds
    if slowed[0] == capped[0] == 0:
        return passed("No GPU reported clocks held down by heat or power.", 0.0, limits.gpu_slowdown_share)
    if slowed[0] > limits.gpu_slowdown_warn_share or capped[0] <= limits.gpu_power_cap_warn_share:
        share, gpu = slowed
        held = f"down for {percent(share)} of the window{told}"
        message = f"Heat or the power supply held the clocks of GPU {gpu} {held}."
        remedy = "Look at cooling, power and what else runs in the machine; it will be slower or faster another day."
        return graded(message, remedy, share, limits.gpu_slowdown_warn_share, limits.gpu_slowdown_share)
    share, gpu = capped
    message = f"GPU {gpu} was at its power limit{_limit(evidence, gpu)} for {percent(share)} of the window{told}."
    remedy = "State the power limit with the figures, or raise it: a GPU with more power to spare is faster."
    return warning(message, remedy, share, limits.gpu_power_cap_warn_share)


@reason("gpu_lost")
def gpu_lost(evidence: Evidence) -> Finding:
    """A GPU was lost in the run, or its readings ended before the window did."""
    lost = [gpu for gpu in _gpus(evidence) if isinstance(gpu.get("lost"), Mapping)]
    if lost:
        names = _names(evidence)
        said = ", ".join(
            f"GPU {names[str(gpu.get('gpu'))]} ({one_line(str(gpu['lost'].get('why')), 80)})" for gpu in lost
        )
        return invalid(f"Lost in the run: {said}.", "Look at the kernel's log (Xid), and run again.", len(lost), 0)
    limit = evidence.thresholds.gpu_silent_s
    silent = _silent_s(evidence)
    if not silent:
        return passed("No GPU was read, so none is known to be lost.")
    gpu = max(silent, key=silent.__getitem__)
    message = f"The longest time without a reading of a GPU in the window is {silent[gpu]:.1f} s, of GPU {gpu}."
    remedy = "See why its readings stopped (hardware.telemetry in run.json); its figures are of a part of the window."
    allowed = max(limit, 5 * _period_s(evidence))
    if silent[gpu] > allowed:
        return warning(message, remedy, silent[gpu], allowed)
    return passed(message, silent[gpu], allowed)


def _worst(evidence: Evidence, bits: int) -> tuple[float, str] | None:
    """The largest share of one GPU's readings in the window with any of these bits, and the GPU's name."""
    shares = {}
    for gpu, readings in _in_window(evidence).items():
        told = [int(bitsum) for _, bitsum in readings if bitsum is not None]
        if told:
            shares[gpu] = sum(1 for each in told if each & bits) / len(told)
    return max(((share, gpu) for gpu, share in shares.items()), default=None)


def _bits(evidence: Evidence) -> str:
    """The harmful reasons that were told, in words."""
    seen = 0
    for readings in _in_window(evidence).values():
        for _, bitsum in readings:
            seen |= int(bitsum or 0)
    words = [each.words for each in reasons(seen & HARMFUL)]
    return f" ({'; '.join(words)})" if words else ""


def _in_window(evidence: Evidence) -> dict[str, list[tuple[int, float | None]]]:
    """GPU -> (stamp, throttle) of its readings in the window."""
    names = _names(evidence)
    found: dict[str, list[tuple[int, float | None]]] = {}
    for sample in evidence.gpu:
        readings = found.setdefault(names.get(sample.gpu, one_line(sample.gpu, 60)), [])
        if evidence.window.start_ns <= sample.at_ns < evidence.window.end_ns:
            readings.append((sample.at_ns, sample.values.get("throttle")))
    return found


def _silent_s(evidence: Evidence) -> dict[str, float]:
    """GPU -> the longest time in the window without a reading."""
    window = evidence.window
    found = {}
    for gpu, readings in _in_window(evidence).items():
        stamps = [window.start_ns, *sorted(at_ns for at_ns, _ in readings), window.end_ns]
        found[gpu] = max((b - a for a, b in pairwise(stamps)), default=0) / SECOND
    return found


def _period_s(evidence: Evidence) -> float:
    told = evidence.gpu_facts.get("period_s")
    return float(told) if isinstance(told, int | float) else 0.0


def _limit(evidence: Evidence, name: str) -> str:
    """Its power limit, and whether somebody lowered it."""
    names = _names(evidence)
    gpu = next((gpu for gpu in _gpus(evidence) if names[str(gpu.get("gpu"))] == name), {})
    limit, default = gpu.get("power_limit_w"), gpu.get("default_power_limit_w")
    if not isinstance(limit, int | float):
        return ""
    lowered = isinstance(default, int | float) and limit < default
    return f" of {limit:.0f} W, lowered from {default:.0f} W," if lowered else f" of {limit:.0f} W"


def _gpus(evidence: Evidence) -> Iterator[Mapping[str, Any]]:
    yield from (gpu for gpu in evidence.gpu_facts.get("gpus") or () if isinstance(gpu, Mapping))


def _names(evidence: Evidence) -> dict[str, str]:
    """What a sample calls a GPU -> its index, or the same where two hosts have one of that index."""
    indices = {str(gpu.get("gpu")): gpu.get("index") for gpu in _gpus(evidence)}
    once = [index for index, count in Counter(map(str, indices.values())).items() if count == 1]
    return {
        gpu: one_line(str(index) if str(index) in once and index is not None else gpu, 60)
        for gpu, index in indices.items()
    }
