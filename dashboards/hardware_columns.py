"""Columns of tables that have a row for a run: what each made of its hardware, by the names of its summary."""

from __future__ import annotations

from collections.abc import Callable

from servemark.dashboards.hardware import dollars
from servemark.dashboards.words import figure, share

HARDWARE = (
    ("output_tps_per_gpu", "tok/s/GPU"),
    ("mbu", "MBU"),
    ("mbu_measured", "measured"),
    ("mfu", "MFU"),
    ("usd_per_1m_output", "$/1M out"),
    ("usd_per_1m_output_slo", "at the SLO"),
    ("joules_per_output_token", "J/token"),
)
"""Figures of the hardware, each shown where any point has it."""
OF_HARDWARE = "What they make of the hardware"
SHARES = ("goodput_share", "mbu", "mbu_measured", "mfu")


def columns_of(known: Callable[[str], bool]) -> tuple[tuple[str, str], ...]:
    """Those of HARDWARE that somebody has."""
    return tuple((name, label) for name, label in HARDWARE if known(name))


def worded(name: str, value: float | None) -> str:
    """A figure of a run's summary without its unit, which its column has."""
    if name in SHARES:
        return share(value)
    return dollars(value) if name.startswith("usd_") else figure(value)
