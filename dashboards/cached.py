"""What the prefix cache was worth: TTFT of the requests whose prompts it held, beside that of the others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from servemark.dashboards.words import milliseconds
from servemark.results.schema import items, number, part


def sentence(run: Mapping[str, Any]) -> str | None:
    """None where responses tell nothing of it, or all were alike."""
    (hits, with_ms), (misses, without_ms) = _ttft(run, "hit"), _ttft(run, "miss")
    if hits is None or misses is None or with_ms is None or without_ms is None:
        return None
    requests = f"{hits:,.0f} request" + ("" if hits == 1 else "s")
    held = f"{milliseconds(with_ms)} where the prompt was cached ({requests})"
    return f"{held}, {milliseconds(without_ms)} where not ({misses:,.0f})"


def _ttft(run: Mapping[str, Any], label: str) -> tuple[float | None, float | None]:
    """How many requests of a group were answered, and the median."""
    group = next((each for each in items(run, "groups") if part(each, "by").get("cached") == label), {})
    ttft = part(group, "metrics", "ttft")
    return number(ttft.get("n")), number(ttft.get("p50"))
