"""A workload and a target -> the plan that a worker carries out."""

from __future__ import annotations

from servemark.harness.load.limits import SPARE
from servemark.harness.load.messages import Address, Plan, Timeouts
from servemark.harness.plan.arrivals import ClosedLoop, OpenLoop
from servemark.harness.plan.schedule import Schedule
from servemark.harness.plan.sources import Prepared
from servemark.harness.plan.spec import Workload
from servemark.harness.server.address import parse_url
from servemark.harness.server.target import Target
from servemark.harness.types import Endpoint

_LEAST_SPARE, _MOST_SPARE = 16, 256
_LOOKED_AT = 32  # items


def worker_plan(spec: Workload, schedule: Schedule, target: Target, endpoint: Endpoint) -> Plan:
    limits = spec.request.timeouts
    closed = spec.load if isinstance(spec.load, ClosedLoop) else None
    return Plan(
        worker=0,
        addresses=tuple(_address(url) for url in target.urls),
        adapter=target.adapter.name,
        framing=target.adapter.framing,
        endpoint=endpoint,
        timeouts=Timeouts(limits.connect, limits.first_event, limits.gap, limits.total),
        balance=target.balance,
        concurrency=closed.concurrency if closed else None,
        max_in_flight=spec.load.max_concurrency if isinstance(spec.load, OpenLoop) else None,
        ramp_up_ns=closed.ramp_up if closed else 0,
        requests_per_minute=closed.requests_per_minute if closed else None,
        connections_ahead=share(connections_ahead(spec, schedule.source), len(target.urls)),
        fresh_connections=spec.request.connections == "fresh",
        give_up_unless=spec.request.give_up.unless if spec.request.give_up else "first_token",
        warmup_ns=spec.run.warmup.duration_ns,
        warmup_requests=spec.run.warmup.requests,
        duration_ns=spec.duration_ns,
        measured_requests=spec.run.requests,
        drain_ns=spec.run.drain,
        cacert=target.cacert,
        insecure=target.insecure,
    )


def _address(url: str) -> Address:
    base = parse_url(url)
    return Address(base.url, base.host, base.port, base.tls)


def share(connections: int, replicas: int) -> int:
    """Of them at each replica: an even share, and spare ones for what no policy spreads evenly at every moment."""
    return connections if replicas == 1 else min(connections, -(-connections // replicas) + SPARE)


def connections_ahead(spec: Workload, source: Prepared) -> int:
    """As many as are sure to be needed at once; an open loop's further ones are opened as the need shows."""
    load, run = spec.load, spec.run
    if isinstance(load, ClosedLoop):
        return load.concurrency
    assert isinstance(load, OpenLoop)
    if load.all_at_once:
        count = run.requests or source.size or _MOST_SPARE
        return min(count + run.warmup.requests, load.max_concurrency or count + run.warmup.requests)
    each_second = (load.peak_rate or 0) * _requests_of_an_item(source)
    spare = min(max(round(2 * each_second), _LEAST_SPARE), _MOST_SPARE)
    return min(spare, load.max_concurrency or spare)


def _requests_of_an_item(source: Prepared) -> float:
    """On average, by the first ones: a session makes as many as it has turns."""
    items = range(min(_LOOKED_AT, source.size or _LOOKED_AT))
    return sum(map(source.turns, items)) / len(items)
