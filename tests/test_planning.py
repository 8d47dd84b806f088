"""A workload in the worker's terms: how many connections stand ready, and what counts as warm-up."""

from __future__ import annotations

from pathlib import Path

import pytest

from servemark.adapters.vllm import ADAPTER
from servemark.harness.load.messages import Plan
from servemark.harness.plan.planning import share, worker_plan
from servemark.harness.plan.schedule import plan
from servemark.harness.plan.spec import load_workload
from servemark.harness.plan.tokens import vocabulary_for
from servemark.harness.server.control import Control
from servemark.harness.server.target import Replica, Target
from servemark.harness.types import ServerFacts

SECOND = 1_000_000_000
PROMPTS = "prompts: {source: synthetic, input_tokens: 64, output_tokens: 8}"


def planned(
    tmp_path: Path,
    load: str,
    run: str = "{duration: 60s, warmup: 10s}",
    request: str = "{}",
    target: Target | None = None,
) -> Plan:
    path = tmp_path / "w.yaml"
    path.write_text(f"version: 1\n{PROMPTS}\nload: {load}\nrun: {run}\nrequest: {request}\n")
    loaded = load_workload(str(path), {})
    with Control("http://127.0.0.1:9/base") as control:
        target = target or Target(ADAPTER, control.url, (), control, ServerFacts(), "m")
        schedule = plan(loaded, vocabulary_for("chat", "m", None, target.ask, None, None))
        return worker_plan(loaded.spec, schedule, target, loaded.spec.request.endpoint or "chat")


@pytest.mark.parametrize(
    ("load", "run", "ahead"),
    [
        ("{concurrency: 7}", "{duration: 60s}", 7),
        ("{concurrency: 1000}", "{duration: 60s}", 1000),
        ("{rate: 1}", "{duration: 60s}", 16),  # never fewer than 16
        ("{rate: 20}", "{duration: 60s}", 40),  # two seconds' worth
        ("{rate: 5000}", "{duration: 60s}", 256),  # never more than 256
        ("{rate: 20, max_concurrency: 3}", "{duration: 60s}", 3),
        ("{rate: 20, max_concurrency: 300}", "{duration: 60s}", 40),
        ("{arrivals: gamma, rate: 20, cv: 4}", "{duration: 60s}", 40),
        ("{arrivals: stages, stages: [{rate: 1, to: 30, duration: 60s}]}", "{}", 60),  # for the highest rate
        ("{arrivals: bursts, on: 1s, off: 9s, rate: 4}", "{duration: 60s}", 80),
        ("{arrivals: daily, peak: 25, trough: 1}", "{duration: 60s}", 50),
        ("{rate: inf}", "{requests: 30}", 30),
        ("{rate: inf}", "{requests: 900}", 900),
        ("{rate: inf}", "{requests: 30, warmup: 5}", 35),
        ("{rate: inf, max_concurrency: 12}", "{requests: 30}", 12),
    ],
)
def test_as_many_connections_stand_ready_as_are_sure_to_be_needed(
    tmp_path: Path, load: str, run: str, ahead: int
) -> None:
    assert planned(tmp_path, load, run).connections_ahead == ahead


@pytest.mark.parametrize(
    ("run", "warmup_ns", "warmup_requests", "duration_ns", "requests"),
    [
        ("{duration: 60s, warmup: 10s}", 10 * SECOND, 0, 60 * SECOND, None),
        ("{duration: 60s, warmup: 0}", 0, 0, 60 * SECOND, None),
        ("{requests: 40, warmup: 5}", 0, 5, None, 40),
        ("{requests: 40, warmup: 2s}", 2 * SECOND, 0, None, 40),
    ],
)
def test_warm_up_is_a_time_or_a_number_and_so_is_the_end(
    tmp_path: Path, run: str, warmup_ns: int, warmup_requests: int, duration_ns: int | None, requests: int | None
) -> None:
    made = planned(tmp_path, "{concurrency: 2}", run)
    assert (made.warmup_ns, made.warmup_requests) == (warmup_ns, warmup_requests)
    assert (made.duration_ns, made.measured_requests) == (duration_ns, requests)


@pytest.mark.parametrize(
    ("connections", "replicas", "each"),
    [
        (7, 1, 7),
        (1000, 4, 266),  # a fair share and 16
        (1001, 4, 267),
        (8, 2, 8),  # never more than all of them
        (256, 16, 32),
    ],
)
def test_connections_are_shared_out_among_replicas(connections: int, replicas: int, each: int) -> None:
    assert share(connections, replicas) == each


def test_every_replica_has_its_address_in_the_plan(tmp_path: Path) -> None:
    with Control("http://127.0.0.1:9/base") as first, Control("https://there:8443") as second:
        others = (Replica(second.url, second, ServerFacts()),)
        target = Target(ADAPTER, first.url, (), first, ServerFacts(), "m", others=others, balance="sticky")
        made = planned(tmp_path, "{concurrency: 40, requests_per_minute: 90}", target=target)
    assert [(each.url, each.port, each.tls) for each in made.addresses] == [
        ("http://127.0.0.1:9/base", 9, False),
        ("https://there:8443", 8443, True),
    ]
    assert (made.balance, made.connections_ahead, made.requests_per_minute) == ("sticky", 36, 90)


def test_a_rate_with_a_cap_stays_an_open_loop(tmp_path: Path) -> None:
    made = planned(tmp_path, "{rate: 20, max_concurrency: 3}")
    assert (made.concurrency, made.max_in_flight) == (None, 3)
    made = planned(tmp_path, "{concurrency: 3, ramp_up: 2s}")
    assert (made.concurrency, made.max_in_flight, made.ramp_up_ns) == (3, None, 2 * SECOND)


def test_the_workers_plan_holds_the_address_and_the_limits(tmp_path: Path) -> None:
    request = (
        "{endpoint: completions, connections: fresh, timeouts: {connect: 1s, first_event: 2s, gap: 3s, total: 4s}}"
    )
    made = planned(tmp_path, "{rate: 1}", "{duration: 5s, drain: 9s}", request)
    [address] = made.addresses
    assert (address.url, address.host, address.port, address.tls) == ("http://127.0.0.1:9/base", "127.0.0.1", 9, False)
    assert (made.adapter, made.framing, made.endpoint) == ("vllm", "sse", "completions")
    limits = made.timeouts
    assert [limits.connect_ns, limits.first_event_ns, limits.gap_ns, limits.total_ns] == [
        k * SECOND for k in (1, 2, 3, 4)
    ]
    assert made.drain_ns == 9 * SECOND
    assert made.fresh_connections
