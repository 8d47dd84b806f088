"""What is said before a matrix or a sweep starts, of loads that it will not measure well."""

from __future__ import annotations

from collections.abc import Iterable

from servemark.harness.matrix.cells import Cell
from servemark.harness.plan.arrivals import ClosedLoop
from servemark.harness.plan.spec import load_workload
from servemark.results.unsteady import PER_CLIENT


def few_requests(cells: Iterable[Cell]) -> str | None:
    """A sentence where a fixed number of requests is over before so many clients give a steady throughput."""
    few = sorted({pair for cell in cells if (pair := _of(cell)) is not None and pair[1] < PER_CLIENT * pair[0]})
    if not few:
        return None
    most, least = max(clients for clients, _ in few), min(requests for _, requests in few)
    loads = ", ".join(dict.fromkeys(str(clients) for clients, _ in few))
    return (
        f"{least} requests are fewer than {PER_CLIENT} for each client at concurrency {loads}: throughput, and what is "
        f"worked out from it, will not be steady there; give --requests {PER_CLIENT * most}, or --duration in its place"
    )


def _of(cell: Cell) -> tuple[int, int] | None:
    """Clients and requests, of a closed loop that a number of requests ends."""
    spec = load_workload(cell.workload, cell.load.flags).spec
    if not isinstance(spec.load, ClosedLoop) or spec.run.requests is None:
        return None
    return spec.load.concurrency, spec.run.requests
