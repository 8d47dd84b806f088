"""Which of several replicas a request goes to, decided at the moment of its sending.

A policy is a registered class; its name is what `--balance` takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol
from zlib import crc32

from servemark.harness.clock import SECOND, now_ns
from servemark.harness.load.messages import Job
from servemark.harness.registry import Registry

PASSED_OVER_NS = SECOND
"""So long after it refused a connection a replica gets nothing by least-in-flight."""


class Replica:
    """What the load generator knows of one address."""

    __slots__ = ("in_flight", "refusals", "refused_ns", "refused_since_ns")

    def __init__(self) -> None:
        self.in_flight = 0
        self.refusals = 0
        """Connections refused in a row, with neither a connection nor an answer in between."""
        self.refused_since_ns = 0
        self.refused_ns = 0
        """The last of them."""

    def refused(self, at_ns: int) -> None:
        if not self.refusals:
            self.refused_since_ns = at_ns
        self.refusals += 1
        self.refused_ns = at_ns


class Balance(Protocol):
    """Made anew for each run. The docstring's first line stands in `bench list`."""

    def choose(self, job: Job, replicas: Sequence[Replica]) -> int:
        """The place of a replica."""


BALANCES: Registry[type[Balance]] = Registry("balance")
DEFAULT = "round-robin"


@BALANCES.register("round-robin")
class RoundRobin:
    """Request i goes to replica i modulo their number, whatever they do."""

    def choose(self, job: Job, replicas: Sequence[Replica]) -> int:
        return job.index % len(replicas)


@BALANCES.register("least-in-flight")
class LeastInFlight:
    """The replica with the fewest requests in flight, in turn where several have; one that refuses is passed over."""

    def __init__(self) -> None:
        self._last = -1

    def choose(self, job: Job, replicas: Sequence[Replica]) -> int:
        """A replica that refuses has nothing in flight: it would draw all requests, as no real balancer lets it."""
        count, now = len(replicas), now_ns()
        # From the one after the last chosen, so that of equals each has its turn.
        order = [(self._last + step) % count for step in range(1, count + 1)]
        well = [k for k in order if not replicas[k].refusals or now - replicas[k].refused_ns > PASSED_OVER_NS]
        self._last = min(well or order, key=lambda k: replicas[k].in_flight)
        return self._last


@BALANCES.register("sticky")
class Sticky:
    """All requests of a session go to one replica, by a hash of its id; without a session, as round-robin."""

    def choose(self, job: Job, replicas: Sequence[Replica]) -> int:
        place = job.index if job.session_id is None else crc32(job.session_id.encode())
        return place % len(replicas)
