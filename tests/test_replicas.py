"""Several replicas behind one run: who gets a request, what becomes of one that is gone, what is refused before."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servemark.adapters.sim.launch import LocalServer, launch
from servemark.adapters.sim.options import SimOptions
from servemark.adapters.vllm import ADAPTER
from servemark.dashboards.terminal import summary_text
from servemark.harness.clock import now_ns
from servemark.harness.errors import BadInput, TargetUnusable
from servemark.harness.load.balance import BALANCES, PASSED_OVER_NS, Replica
from servemark.harness.load.jobs import JobQueue
from servemark.harness.load.limits import SPARE, check_files, most_files
from servemark.harness.load.messages import Address, Job, Plan, Timeouts
from servemark.harness.load.replicas import Replicas
from servemark.harness.load.runner import Runner
from servemark.harness.server.target import Target, reach_all
from servemark.harness.types import Record, WorkerReport
from tests.answering import Asked, answering
from tests.commands import TOLERANT, bench, check, journal, run_json, started, wait_until
from tests.scripted_server import Behaviour, Peer, serving

MS = 1_000_000
SECOND = 1_000_000_000


def job(index: int, session: str | None = None) -> Job:
    return Job(index, None, b"{}", heads=(b"one ", b"two "), session_id=session)


def replicas(*in_flight: int) -> list[Replica]:
    made = [Replica() for _ in in_flight]
    for replica, count in zip(made, in_flight, strict=True):
        replica.in_flight = count
    return made


# --- the policies


@given(st.integers(0, 10**9), st.integers(1, 16))
def test_round_robin_is_a_function_of_the_index(index: int, count: int) -> None:
    busy = replicas(*range(count))
    assert BALANCES["round-robin"]().choose(job(index), busy) == index % count


@given(st.text(), st.lists(st.integers(0, 10**6), min_size=2), st.integers(2, 16))
def test_a_session_stays_where_it_is(session: str, indexes: list[int], count: int) -> None:
    choices = {BALANCES["sticky"]().choose(job(i, session), replicas(*range(count))) for i in indexes}
    assert len(choices) == 1
    assert choices < set(range(count))


def test_sessions_are_spread_and_requests_without_one_go_by_index() -> None:
    policy = BALANCES["sticky"]()
    spread = Counter(policy.choose(job(0, f"session-{k}"), replicas(0, 0, 0, 0)) for k in range(4000))
    assert all(800 < spread[k] < 1200 for k in range(4))
    assert [policy.choose(job(k), replicas(0, 0, 0)) for k in range(6)] == [0, 1, 2, 0, 1, 2]
    assert policy.choose(job(7, "ada"), replicas(0, 0, 0)) == 0  # CRC-32 of "ada" is 2372962152, a multiple of 3


@given(st.lists(st.integers(0, 50), min_size=2, max_size=16))
def test_the_least_busy_replica_is_chosen(in_flight: list[int]) -> None:
    chosen = BALANCES["least-in-flight"]().choose(job(0), replicas(*in_flight))
    assert in_flight[chosen] == min(in_flight)


def test_of_equally_busy_replicas_each_has_its_turn() -> None:
    """One request at a time would else always go to the first."""
    policy = BALANCES["least-in-flight"]()
    assert [policy.choose(job(k), replicas(0, 0, 0)) for k in range(6)] == [0, 1, 2, 0, 1, 2]
    assert policy.choose(job(6), replicas(1, 0, 0)) == 1


def test_a_replica_that_refuses_draws_no_requests_for_a_while() -> None:
    """Nothing is in flight there, so it would look the least busy of all."""
    policy, found = BALANCES["least-in-flight"](), replicas(0, 9, 9)
    found[0].refused(now_ns())
    assert {policy.choose(job(k), found) for k in range(6)} == {1, 2}
    found[0].refused_ns -= PASSED_OVER_NS + SECOND
    assert policy.choose(job(7), found) == 0  # it is tried again
    for each in found:
        each.refused(now_ns())
    assert policy.choose(job(8), found) == 0  # where all refuse, the least busy


def plan(*ports: int, **fields: object) -> Plan:
    fields.setdefault("concurrency", 4)
    fields.setdefault("connections_ahead", 4)
    addresses = tuple(Address(f"http://127.0.0.1:{port}", "127.0.0.1", port, False) for port in ports)
    return Plan(0, addresses, "vllm", "sse", "chat", Timeouts(), **fields)  # type: ignore[arg-type]


def test_the_run_is_lost_only_when_every_replica_is_gone() -> None:
    """20 refusals in all, and each of them for more than 5 s, with no answer in between."""
    found, at = Replicas(plan(1, 2)), SECOND
    assert not any(found.refused(0, at + k * SECOND) for k in range(60))
    assert not found.refused(1, at)
    assert not found.refused(1, at + 4 * SECOND)
    assert found.refused(1, at + 6 * SECOND)
    found.answered(1)
    assert not found.refused(0, at + 90 * SECOND)
    assert not found.refused(1, at + 91 * SECOND)


def test_one_server_is_lost_after_twenty_refusals_and_five_seconds() -> None:
    found = Replicas(plan(1))
    assert not any(found.refused(0, k * SECOND) for k in range(1, 20))
    assert found.refused(0, 20 * SECOND)
    assert not any(Replicas(plan(1)).refused(0, SECOND) for _ in range(30))


# --- a run


async def run(made: Plan, jobs: Sequence[Job]) -> tuple[list[Record], WorkerReport]:
    queue = JobQueue(lambda count: None)
    for each in jobs:
        queue.put(each)
    queue.end()
    records: list[Record] = []
    runner = Runner(made, ADAPTER, queue, records.append, lambda status: None)
    await runner.prepare()
    report = await asyncio.wait_for(runner.run(lambda mono, wall: None), 30)
    return sorted(records, key=lambda record: record.request_id), report


def message(index: int, count: int, session: str | None = None, offset_ns: int | None = None) -> Job:
    """Names of the paths differ by replica, so that a head that reaches the wrong one is an error there."""
    heads = tuple(
        f"POST /at{k} HTTP/1.1\r\nHost: replica-{k}\r\nContent-Length: 2\r\n\r\n".encode() for k in range(count)
    )
    return Job(index, offset_ns, b"{}", heads=heads, session_id=session, asked_output_tokens=3)


@contextlib.asynccontextmanager
async def deployment(*behaviours: Behaviour) -> AsyncIterator[list[int]]:
    async with contextlib.AsyncExitStack() as stack:
        yield [await stack.enter_async_context(serving({f"at{k}": each})) for k, each in enumerate(behaviours)]


async def quick(peer: Peer) -> None:
    await peer.stream(2, 0)


def urls(ports: Sequence[int], records: Sequence[Record]) -> list[int]:
    places = {f"http://127.0.0.1:{port}": k for k, port in enumerate(ports)}
    return [places[record.url] for record in records]


async def test_round_robin_sends_each_its_own_head_and_records_where_it_went() -> None:
    async with deployment(quick, quick, quick) as ports:
        records, report = await run(plan(*ports), [message(k, 3) for k in range(30)])
    assert [record.error for record in records] == [None] * 30
    assert urls(ports, records) == [k % 3 for k in range(30)]
    assert report.issued == 30


async def test_sticky_sessions_stay() -> None:
    async with deployment(quick, quick) as ports:
        jobs = [message(k, 2, session=f"s{k % 5}") for k in range(40)]
        records, _ = await run(plan(*ports, balance="sticky"), jobs)
    places: dict[str | None, set[int]] = {}
    for record, place in zip(records, urls(ports, records), strict=True):
        places.setdefault(record.session_id, set()).add(place)
    assert len(places) == 5
    assert all(len(each) == 1 for each in places.values())


async def test_least_in_flight_spares_the_replica_that_hangs() -> None:
    """Of four slots at most two ever wait at the slow one; round-robin would bring all four there."""

    async def slow(peer: Peer) -> None:
        await asyncio.sleep(0.4)
        await peer.stream(1, 0)

    async with deployment(slow, quick) as ports:
        jobs = [message(k, 2) for k in range(60)]
        records, _ = await run(plan(*ports, balance="least-in-flight"), jobs)
    assert [record.error for record in records] == [None] * 60
    slow_ones = [record for record, place in zip(records, urls(ports, records), strict=True) if place == 0]
    assert len(slow_ones) < 30
    for one in slow_ones:
        overlapping = [
            other for other in slow_ones if (other.sent_ns or 0) <= (one.sent_ns or 0) < (other.done_ns or 0)
        ]
        assert len(overlapping) <= 2


@contextlib.contextmanager
def refusing() -> Iterator[int]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening
        yield taken.getsockname()[1]


@pytest.mark.parametrize(("balance", "failed"), [("round-robin", 20), ("least-in-flight", None)])
async def test_requests_to_a_replica_that_is_gone_fail_and_the_others_go_on(balance: str, failed: int | None) -> None:
    with refusing() as gone:
        async with deployment(quick, quick) as ports:
            ports[0] = gone
            records, report = await run(plan(*ports, balance=balance), [message(k, 2) for k in range(40)])
    kinds = Counter((place, record.error) for place, record in zip(urls(ports, records), records, strict=True))
    assert set(kinds) == {(0, "connect"), (1, None)}
    assert report.stop_reason == "finished"
    if failed is not None:
        assert kinds[0, "connect"] == failed
    else:
        assert kinds[0, "connect"] < 20  # passed over once it has refused


async def test_all_connections_are_opened_ahead_where_they_are_needed() -> None:
    """Eight slots over two replicas: no request of a closed loop waits for a connection at the start."""
    async with deployment(quick, quick) as ports:
        records, _ = await run(plan(*ports, concurrency=8, connections_ahead=4), [message(k, 2) for k in range(8)])
    for record in records:
        assert record.connect_ns is not None
        assert record.connect_ns <= record.intended_ns


async def test_what_was_never_sent_counts_for_the_replica_where_it_would_have_gone() -> None:
    async def hangs(peer: Peer) -> None:
        await asyncio.sleep(30)

    async with deployment(hangs, hangs) as ports:
        made = plan(*ports, concurrency=None, max_in_flight=1, drain_ns=100 * MS)
        records, _ = await run(made, [message(k, 2, offset_ns=0) for k in range(4)])
    assert [record.error for record in records] == ["abandoned"] * 4
    assert urls(ports, records) == [0, 1, 0, 1]


def test_a_run_that_needs_more_files_than_there_are_is_refused() -> None:
    room = most_files() - 64
    check_files(plan(1, concurrency=room, connections_ahead=room))
    check_files(plan(1, 2, concurrency=room - 2 * SPARE, connections_ahead=room // 2))
    with pytest.raises(BadInput, match="files must be open at once"):
        check_files(plan(1, 2, concurrency=1, connections_ahead=room // 2 + 1))
    with pytest.raises(BadInput, match="files must be open at once"):
        check_files(plan(1, 2, concurrency=room - 1, connections_ahead=1))


# --- before the load


def answers(
    model: str = "m", version: str = "1", context: int = 4096, owner: str = "vllm"
) -> Callable[[Asked], tuple[int, bytes]]:
    def answer(asked: Asked) -> tuple[int, bytes]:
        if asked.path == "/version":
            return 200, json.dumps({"version": version}).encode()
        if asked.path == "/v1/models":
            card = {"id": model, "owned_by": owner, "max_model_len": context}
            return 200, json.dumps({"object": "list", "data": [card]}).encode()
        return (200, b"") if asked.path in ("/health", "/ping") else (404, b"{}")

    return answer


def reached(*said: Callable[[Asked], tuple[int, bytes]], model: str | None = None) -> Target:
    with contextlib.ExitStack() as stack:
        found = [stack.enter_context(answering(each)) for each in said]
        target = reach_all(ADAPTER, found, (), model, "sticky")
        target.close()
        assert list(target.urls) == found
        return target


def test_replicas_are_all_looked_at() -> None:
    target = reached(answers(), answers(), answers())
    assert [each.facts.models for each in target.replicas] == [("m",)] * 3
    assert target.balance == "sticky"
    assert target.versions == ("1",)


def test_another_version_is_noted() -> None:
    assert reached(answers(), answers(version="2")).versions == ("1", "2")


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        (answers(model="n"), r"does not serve m, as http://\S+ does; there are: n; replicas serve one model"),
        (answers(context=8192), r"has a context of 8192 tokens, and at http://\S+ one of 4096"),
        (answers(owner="llamacpp"), r"is a server of the kind llamacpp|the server"),
    ],
)
def test_one_that_is_no_replica_is_a_sentence(other: Callable[[Asked], tuple[int, bytes]], sentence: str) -> None:
    with pytest.raises(TargetUnusable, match=sentence):
        reached(answers(), other)


def test_one_address_twice_is_refused() -> None:
    for second in ("http://127.0.0.1:9/", "http://127.0.0.1:9/v1"):
        with pytest.raises(BadInput, match=r"--url http://127.0.0.1:9 is given twice"):
            reach_all(ADAPTER, ["http://127.0.0.1:9", second], (), None, "round-robin")


# --- the command


@pytest.fixture(scope="module")
def pair() -> Iterator[list[LocalServer]]:
    with launch(SimOptions()) as one, launch(SimOptions()) as two:
        yield [one, two]


def against(pair: Sequence[LocalServer]) -> list[str]:
    return [word for each in pair for word in ("--url", each.url)]


def test_a_run_tells_its_replicas_apart(pair: list[LocalServer], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    few = ("--concurrency", "4", "--requests", "40", "--warmup", "0", "--input-tokens", "64", "--output-tokens", "8")
    said = bench("run", "--target", "sim", *against(pair), *few, "--out", str(folder), *TOLERANT)
    assert said.code == 0, said.out + said.err
    run = run_json(folder)
    assert run["target"]["balance"] == "round-robin"
    assert [each["url"] for each in run["target"]["replicas"]] == [each.url for each in pair]
    by_url = {each["by"]["url"]: each["metrics"] for each in run["groups"] if "url" in each["by"]}
    assert {url: metrics["ttft"]["n"] for url, metrics in by_url.items()} == {each.url: 20 for each in pair}
    assert check(run, "replica_versions") == "pass"
    for each in pair:
        assert each.url in said.out
        assert each.url in (folder / "report.html").read_text()


def test_a_replica_that_is_not_there_is_told_before_the_load(pair: list[LocalServer], tmp_path: Path) -> None:
    with refusing() as gone:
        words = ("--url", pair[0].url, "--url", f"http://127.0.0.1:{gone}", "--out", str(tmp_path / "run"))
        said = bench("run", "--target", "sim", *words)
    assert said.code == 3
    assert f"http://127.0.0.1:{gone} refuses connections" in said.err
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_run_outlives_one_replica_but_not_the_last(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    load = (
        "--concurrency",
        "4",
        "--input-tokens",
        "64",
        "--output-tokens",
        "8",
        "--duration",
        "300s",
        "--warmup",
        "0s",
    )
    with launch(SimOptions()) as first, launch(SimOptions()) as last:
        words = ("run", "--target", "sim", *against([first, last]), *load, "--quiet", "--out", str(folder))
        with started(*words) as process:
            wait_until(lambda: len(journal(folder)) >= 8, "requests have ended")
            first.process.kill()
            wait_until(lambda: failed(folder, first) >= 30, "the first replica is gone for long")
            before = ok(folder, last)
            wait_until(lambda: ok(folder, last) > before + 8, "the other goes on")
            last.process.kill()
            said = process.end()
    assert said.code == 4
    assert "Traceback" not in said.err
    run = run_json(folder)
    assert run["worker"]["stop_reason"] == "server_lost"
    assert check(run, "server_lost") == "invalid"


def failed(folder: Path, server: LocalServer) -> int:
    return sum(record["error"] == "connect" and record["url"] == server.url for record in journal(folder))


def ok(folder: Path, server: LocalServer) -> int:
    return sum(record["error"] is None and record["url"] == server.url for record in journal(folder))


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--balance", "fair"), "there is no 'fair'; there are: round-robin, least-in-flight, sticky"),
        (("--balance", "sticky"), "give --url once for each"),
        (("--url", "http://127.0.0.1:9", "--balance", "sticky"), "give --url once for each"),
        (("--url", "http://127.0.0.1:9", "--url", "http://127.0.0.1:9"), "is given twice"),
    ],
)
def test_what_cannot_be_balanced_is_a_sentence(words: tuple[str, ...], sentence: str) -> None:
    said = bench("run", "--target", "sim", *words)
    assert said.code == 2
    assert sentence in said.err


def test_check_names_every_replica(pair: list[LocalServer]) -> None:
    said = bench("check", "--target", "sim", *against(pair), "--balance", "least-in-flight")
    assert said.code == 0
    assert all(f"at {each.url} is ready" in said.out for each in pair)
    assert "2, requests go least-in-flight" in said.out


def test_a_policy_is_listed_by_its_first_line() -> None:
    said = bench("list").out
    for name, policy in BALANCES.items():
        assert f"  {name}" in said
        assert policy.__doc__ is not None


def test_the_summary_shows_replicas_side_by_side() -> None:
    def group(url: str, n: int, failed: float) -> dict[str, object]:
        ttft = {"n": n, "p50": 28.71, "p99": 90.52}
        return {
            "by": {"url": url},
            "metrics": {"ttft": ttft, "output_tps": {"value": 963.2}, "error_rate": {"value": failed}},
        }

    groups = [{"by": {"class": "rag"}, "metrics": {}}, group("http://a:1", 64, 0.0), group("http://b:2", 32, 0.5)]
    lines = summary_text({"groups": groups}).partition("\nReplicas\n")[2].splitlines()
    assert lines[1].split() == ["http://a:1", "64", "28.7", "90.5", "963", "none"]
    assert lines[2].split() == ["http://b:2", "32", "28.7", "90.5", "963", "50.0", "%"]
    assert "Replicas" not in summary_text({"groups": groups[:1]})
