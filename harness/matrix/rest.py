"""Between two runs: a pause, and then until the server says that it is at rest, as far as it tells."""

from __future__ import annotations

import time
from collections.abc import Sequence

from servemark.harness.clock import SECOND, now_ns
from servemark.harness.errors import BenchError
from servemark.harness.launch.launching import Engine
from servemark.harness.server.meters import find_meters
from servemark.harness.server.samples import combined
from servemark.harness.server.scrape import Access
from servemark.harness.types import Adapter

MOST_S = 60.0
"""No longer than this is a server waited for that is still at work."""
_LOOK_S = 0.5


def standing(adapter: Adapter, urls: Sequence[str], engine: Engine | None) -> tuple[str, ...]:
    """The base URLs of the servers that go on between two runs; none where each run starts one of its own."""
    if engine is None and not urls and adapter.name == "sim":
        return ()
    return tuple(map(adapter.base_url, (engine.url,) if engine is not None else urls or (adapter.default_url,)))


def rested(
    adapter: Adapter, access: Access, metrics_urls: Sequence[str], pause_s: float, most_s: float = MOST_S
) -> str | None:
    """Waits. What the server was still at when it was given up on, in words; None where it rests, or does not tell.

    Where none goes on there is nothing to wait for.
    """
    if not access.servers:
        return None
    time.sleep(pause_s)
    deadline_ns = now_ns() + round(most_s * SECOND)
    while at_work := _at_work(adapter, access, metrics_urls):
        if now_ns() > deadline_ns:
            running, waiting = at_work
            return f"the server still has {running:g} requests running and {waiting:g} waiting after {most_s:g} s"
        time.sleep(_LOOK_S)
    return None


def _at_work(adapter: Adapter, access: Access, metrics_urls: Sequence[str]) -> tuple[float, float] | None:
    """Requests running and waiting; None where there are none of either, or nothing is told."""
    if any(source.draining for source in adapter.metrics):
        return None  # what is read here would be missing in the next run
    try:
        first = find_meters(adapter, access, metrics_urls).first
    except BenchError:  # the next run says what is wrong
        return None
    told = combined(first).values if first else {}
    found = (told.get("running", 0.0), told.get("waiting", 0.0))
    return found if any(found) else None
