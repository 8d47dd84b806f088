"""A share of 1 as people read it, in every sentence and table alike."""

from __future__ import annotations

import math

NOTHING = "–"


def share(value: float | None) -> str:
    """0.985 -> "98.5 %"; never 100 % for a part, nor 0 % for something."""
    if value is None or math.isnan(value):
        return NOTHING
    percent = value * 100
    if 99.95 <= percent < 100 or 0 < percent < 0.05:
        return f"{percent:.2g} %" if percent < 50 else f"{math.floor(percent * 1000) / 1000:g} %"
    if percent >= 105:
        return f"{percent:,.0f} %"
    return f"{percent:.1f} %" if percent not in (0, 100) else f"{percent:.0f} %"
