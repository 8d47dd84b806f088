"""What this machine allows: open files."""

from __future__ import annotations

import resource

from servemark.harness.errors import BadInput
from servemark.harness.load.messages import Plan

_OTHER_FILES = 64


def most_files() -> int:
    """Open files that a worker process may have."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[1]


def check_files(plan: Plan) -> None:
    """BadInput where the run is sure to need more connections than files may be open."""
    needed = max(plan.connections_ahead, plan.concurrency or plan.max_in_flight or 0) + _OTHER_FILES
    if needed > most_files():
        raise BadInput(
            f"{needed} files must be open at once and this machine allows {most_files()}; "
            "lower --concurrency, or raise the limit with `ulimit -Hn`"
        )
