"""How many connections are kept, and what this machine allows: open files."""

from __future__ import annotations

import resource

from servemark.harness.errors import BadInput
from servemark.harness.load.messages import Plan

SPARE = 16
"""Kept idle at each address where more may be needed than stand; at 50 opened a second, enough for a burst."""
_OTHER_FILES = 64


def most_files() -> int:
    """Open files that a worker process may have."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[1]


def check_files(plan: Plan) -> None:
    """BadInput where the run is sure to need more connections than files may be open."""
    replicas = len(plan.addresses)
    spare = SPARE * replicas if replicas > 1 else 0
    in_flight = plan.concurrency or plan.max_in_flight or 0
    needed = max(plan.connections_ahead * replicas, in_flight + spare) + _OTHER_FILES
    if needed > most_files():
        raise BadInput(
            f"{needed} files must be open at once and this machine allows {most_files()}; "
            "lower --concurrency, or raise the limit with `ulimit -Hn`"
        )
