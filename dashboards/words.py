"""Numbers and names as people read them; one way for the terminal, the live view and the page."""

from __future__ import annotations

import math

from servemark.harness.figures.percent import NOTHING, share

__all__ = ["NOTHING", "share"]

_LABELS = {
    "ttft": "TTFT",
    "ttfa": "TTFA",
    "itl": "ITL",
    "icl": "ICL",
    "tpot": "TPOT",
    "e2e": "E2E",
    "rps": "requests/s",
    "tps": "tok/s",
    "slo": "SLO",
    "cpu": "CPU",
    "id": "id",
    "kv": "KV",
    "rtt": "RTT",
}


_NAMES = {
    "tps_user": "tok/s per user",
    "tpot_n1": "TPOT by N - 1",
    "ttft_sent": "TTFT from sent",
    "e2e_sent": "E2E from sent",
    "goodput_run": "goodput, whole run",
}


def name_of(name: str) -> str:
    """`e2e_per_token` -> "E2E per token": our names with the field's spelling of its terms."""
    if name in _NAMES:
        return _NAMES[name]
    return " ".join(_LABELS.get(word, word) for word in name.split("_"))


def figure(value: float | None) -> str:
    """About three significant digits, thousands apart: 0.0123, 1.23, 12.3, 123, 12,345."""
    if value is None or math.isnan(value):
        return NOTHING
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    size = abs(value)
    if size == 0:
        return "0"
    if size >= 99.95:
        return f"{value:,.0f}"
    digits = 1 if size >= 9.995 else 2 if size >= 0.995 else min(6, 2 - math.floor(math.log10(size)))
    return f"{value:.{digits}f}"


def milliseconds(value: float | None) -> str:
    """A latency with the unit that suits its size."""
    if value is None or math.isnan(value):
        return NOTHING
    if abs(value) >= 10_000:
        return f"{figure(value / 1000)} s"
    return f"{figure(value)} ms"


def clock_time(seconds: float) -> str:
    """65.4 -> "1:05"."""
    whole = int(max(0.0, seconds))
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


def seconds(value: float | None) -> str:
    """A length of time in the unit that suits its size."""
    if value is None:
        return NOTHING
    if value >= 600:
        return clock_time(value)
    return f"{figure(value)} s" if value >= 1 or value == 0 else milliseconds(value * 1000)


def size(value: float | None) -> str:
    """Bytes, in powers of 1024."""
    if value is None:
        return NOTHING
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{figure(value)} {unit}"
        value /= 1024
    return f"{figure(value)} TiB"


def of_unit(value: float | None, unit: str) -> str:
    """A value with its unit."""
    if value is None:
        return NOTHING
    if unit == "ms":
        return milliseconds(value)
    if unit in ("share", "ratio", "fraction"):
        return share(value)
    if unit == "bytes":
        return size(value)
    if unit in ("s", "seconds"):
        return seconds(value)
    return f"{figure(value)} {unit}".rstrip()
