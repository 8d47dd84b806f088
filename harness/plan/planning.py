"""A workload and a target -> the plan that a worker carries out."""

from __future__ import annotations

from servemark.harness.load.messages import Address, Plan, Timeouts
from servemark.harness.plan.arrivals import ClosedLoop, OpenLoop
from servemark.harness.plan.schedule import Schedule
from servemark.harness.plan.spec import Workload
from servemark.harness.server.address import parse_url
from servemark.harness.server.target import Target
from servemark.harness.types import Endpoint

_LEAST_SPARE, _MOST_SPARE = 16, 256


def worker_plan(spec: Workload, schedule: Schedule, target: Target, endpoint: Endpoint) -> Plan:
    base, limits = parse_url(target.url), spec.request.timeouts
    closed = spec.load if isinstance(spec.load, ClosedLoop) else None
    return Plan(
        worker=0,
        addresses=(Address(base.url, base.host, base.port, base.tls),),
        adapter=target.adapter.name,
        framing=target.adapter.framing,
        endpoint=endpoint,
        timeouts=Timeouts(limits.connect, limits.first_event, limits.gap, limits.total),
        concurrency=closed.concurrency if closed else None,
        max_in_flight=spec.load.max_concurrency if isinstance(spec.load, OpenLoop) else None,
        think_time_ns=closed.think_time if closed else 0,
        connections_ahead=connections_ahead(spec, schedule.source.size),
        fresh_connections=spec.request.connections == "fresh",
        warmup_ns=spec.run.warmup.duration_ns,
        warmup_requests=spec.run.warmup.requests,
        duration_ns=spec.duration_ns,
        measured_requests=spec.run.requests,
        drain_ns=spec.run.drain,
        cacert=target.cacert,
        insecure=target.insecure,
    )


def connections_ahead(spec: Workload, size: int | None) -> int:
    """As many as are sure to be needed at once; an open loop's further ones are opened as the need shows."""
    load, run = spec.load, spec.run
    if isinstance(load, ClosedLoop):
        return load.concurrency
    assert isinstance(load, OpenLoop)
    if load.all_at_once:
        count = run.requests or size or _MOST_SPARE
        return min(count + run.warmup.requests, load.max_concurrency or count + run.warmup.requests)
    rate = getattr(load, "rate", None) or 0
    spare = min(max(round(2 * rate), _LEAST_SPARE), _MOST_SPARE)
    return min(spare, load.max_concurrency or spare)
