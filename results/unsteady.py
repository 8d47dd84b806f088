"""Why the throughput of a VALID run, and what is worked out from it, is nothing to lean on: too little was measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from servemark.results.headline import HARDWARE_FIGURES
from servemark.results.schema import items, number, part, text

PER_CLIENT = 5
"""So many requests of each client of a closed loop make its throughput steady: with fewer, those that happen to be
short, and the times at which clients begin and end, decide it."""
FIGURES = (
    "output_tps",
    "input_tps",
    "rps",
    "goodput",
    *HARDWARE_FIGURES,
)
"""What stands on the throughput."""
_SAYING = ("short_run", "not_steady", "sample_size")


def unsteady(run: Mapping[str, Any]) -> list[str]:
    """A sentence each: the check, its figure, and what to do. Empty where the throughput is steady."""
    return [*_warned(run), *_few(run)]


def _warned(run: Mapping[str, Any]) -> Iterator[str]:
    """In a closed loop the number of clients decides whether a number of requests is small: see `_few`."""
    for check in items(run, "verdict", "checks"):
        code = text(check.get("code"), 60)
        if check.get("severity") != "warning" or code not in _SAYING or (code == "sample_size" and _clients(run)):
            continue
        yield f"{code}: {text(check.get('message'), 300)} {text(check.get('remedy'), 300)}"


def _few(run: Mapping[str, Any]) -> Iterator[str]:
    clients, measured = _clients(run), number(part(run, "summary").get("requests_measured"))
    if clients and measured is not None and measured < PER_CLIENT * clients:
        said = f"{measured:.0f} requests of {clients:g} clients were measured."
        yield f"sample_size: {said} Measure {PER_CLIENT * clients:g} requests or more."


def _clients(run: Mapping[str, Any]) -> float | None:
    return number(part(run, "workload", "resolved", "load").get("concurrency"))
