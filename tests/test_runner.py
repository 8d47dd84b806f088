"""A request that fails in any way is a record with its kind of error; nothing raises and nothing is lost."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time

import pytest
import trustme
from msgspec.structs import replace

from servemark.adapters.vllm import ADAPTER
from servemark.harness.load.jobs import JobQueue
from servemark.harness.load.messages import Address, Job, Plan, Timeouts
from servemark.harness.load.runner import Runner
from servemark.harness.types import Record, WorkerReport
from tests.scripted_server import DONE, END, ERROR, HEAD, Behaviour, Peer, chunk, event, serving

MS = 1_000_000


def job(index: int, name: str, offset_ns: int | None = None, body: bytes = b"{}") -> Job:
    head = f"POST /{name} HTTP/1.1\r\nHost: t\r\nContent-Length: {len(body)}\r\n\r\n"
    return Job(index, offset_ns, head.encode() + body, asked_output_tokens=3)


def plan(port: int, **fields: object) -> Plan:
    fields.setdefault("concurrency", 1)
    fields.setdefault("connections_ahead", 1)
    address = Address(f"http://127.0.0.1:{port}", "127.0.0.1", port, bool(fields.pop("tls", False)))
    return Plan(0, (address,), "vllm", "sse", "chat", fields.pop("timeouts", Timeouts()), **fields)  # type: ignore[arg-type]


async def run(made: Plan, jobs: list[Job], stop_after_s: float | None = None) -> tuple[list[Record], WorkerReport]:
    queue = JobQueue(lambda count: None)
    for one in jobs:
        queue.put(one)
    queue.end()
    records: list[Record] = []
    runner = Runner(made, ADAPTER, queue, records.append, lambda status: None)
    await runner.prepare()
    if stop_after_s is not None:
        asyncio.get_running_loop().call_later(stop_after_s, runner.stop, 0)
    report = await asyncio.wait_for(runner.run(lambda mono, wall: None), 20)
    return sorted(records, key=lambda record: record.request_id), report


async def one(behaviour: Behaviour, **fields: object) -> Record:
    async with serving({"x": behaviour}) as port:
        records, _ = await run(plan(port, **fields), [job(0, "x")])
    assert len(records) == 1
    return records[0]


async def test_a_complete_stream_is_a_record_in_the_order_of_time() -> None:
    record = await one(lambda peer: peer.stream(3))
    assert record.error is None
    assert record.output_tokens == 3
    assert record.prompt_tokens == 3
    assert record.chunk_tokens == (1, 1, 1)
    assert record.finish_reason == "length"
    stamps = [
        record.connect_started_ns,
        record.connect_ns,
        record.intended_ns,
        record.sent_ns,
        record.first_byte_ns,
        record.first_token_ns,
        record.last_token_ns,
        record.done_ns,
    ]
    assert None not in stamps
    assert stamps == sorted(stamps)  # type: ignore[type-var]
    assert record.first_answer_ns == record.first_token_ns


async def test_the_client_may_lag_and_the_stamps_do_not() -> None:
    """The event loop is held while tokens arrive; the kernel's stamps still tell the gaps that the server made."""

    async def paced(peer: Peer) -> None:
        await peer.stream(5, pause_s=0.03)

    async with serving({"x": paced}) as port:
        # The server lives in a thread of its own loop, so that holding this one holds the client only.
        loop = asyncio.get_running_loop()
        records: list[Record] = []

        async def client() -> None:
            queue = JobQueue(lambda count: None)
            queue.put(job(0, "x"))
            queue.end()
            runner = Runner(plan(port), ADAPTER, queue, records.append, lambda status: None)
            await runner.prepare()
            asyncio.get_running_loop().call_later(0.06, time.sleep, 0.05)
            await runner.run(lambda mono, wall: None)

        await loop.run_in_executor(None, lambda: asyncio.run(client()))
    (record,) = records
    assert record.stamp == "kernel"
    assert record.done_ns is not None
    assert record.sent_ns is not None
    # A stamp taken in user space would put a token at the end of the 50 ms hold and the next one right behind it;
    # the kernel's gaps are never below the server's pause, but for reads that returned two segments at once.
    gaps = [b - a for a, b in zip(record.chunk_ns, record.chunk_ns[1:], strict=False)]
    assert min(gaps) > 20 * MS


async def never(peer: Peer) -> None:
    await asyncio.sleep(30)


async def refuse(peer: Peer) -> None:
    body = b'{"error":{"message":"no such model"}}'
    await peer.send(b"HTTP/1.1 404 Not Found\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))


async def cut(peer: Peer) -> None:
    await peer.send(HEAD, chunk(event("w", 1)))
    peer.writer.close()


async def reset_midway(peer: Peer) -> None:
    await peer.send(HEAD, chunk(event("w", 1)))
    await asyncio.sleep(0.02)
    peer.reset()


async def error_then_done(peer: Peer) -> None:
    await peer.send(HEAD, chunk(event("w", 1)), chunk(ERROR), chunk(DONE), END)


async def no_end_marker(peer: Peer) -> None:
    await peer.send(HEAD, chunk(event("w", 1)), END)


async def no_events(peer: Peer) -> None:
    await peer.send(HEAD, END)


async def only_done(peer: Peer) -> None:
    await peer.send(HEAD, chunk(DONE), END)


async def no_sse(peer: Peer) -> None:
    await peer.send(HEAD, chunk(b"<html>hello</html>\n\n"), END)


async def no_json(peer: Peer) -> None:
    await peer.send(HEAD, chunk(b"data: {oops\n\n"), END)


async def no_http(peer: Peer) -> None:
    await peer.send(b"SSH-2.0-OpenSSH_9.2\r\n")


async def headers_only(peer: Peer) -> None:
    await peer.send(HEAD)
    await asyncio.sleep(30)


async def stalls(peer: Peer) -> None:
    await peer.send(HEAD, chunk(event("w", 1)))
    await asyncio.sleep(30)


async def comments_for_ever(peer: Peer) -> None:
    await peer.send(HEAD)
    while True:
        await peer.send(chunk(b": ping\n\n"))
        await asyncio.sleep(0.02)


async def drips_for_ever(peer: Peer) -> None:
    await peer.send(HEAD)
    for k in range(1, 10_000):
        await peer.send(chunk(event("w", k)))
        await asyncio.sleep(0.02)


SHORT = {
    "first_event_ns": 150 * MS,
    "gap_ns": 60_000 * MS,
    "total_ns": 60_000 * MS,
}


@pytest.mark.parametrize(
    ("behaviour", "kind", "detail", "limits"),
    [
        (refuse, "http_status", "no such model", {}),
        (cut, "incomplete", "middle", {}),
        (reset_midway, "reset", "", {}),
        (error_then_done, "server_error", "engine died", {}),
        (no_end_marker, "incomplete", "", {}),
        (no_events, "empty", "no event", {}),
        (only_done, "empty", "", {}),
        (no_sse, "protocol", "not an event stream", {}),
        (no_json, "protocol", "", {}),
        (no_http, "protocol", "not an HTTP response", {}),
        (never, "timeout_first_event", "no event after 0.15 s", SHORT),
        (headers_only, "timeout_first_event", "no event", SHORT),
        (comments_for_ever, "timeout_first_event", "no event", SHORT),
        (stalls, "timeout_gap", "no bytes for 0.15 s", {**SHORT, "gap_ns": 150 * MS}),
        (drips_for_ever, "timeout_total", "not finished after 0.3 s", {**SHORT, "total_ns": 300 * MS}),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
async def test_each_failure_is_a_record_with_its_kind(
    behaviour: Behaviour, kind: str, detail: str, limits: dict[str, int]
) -> None:
    record = await one(behaviour, timeouts=Timeouts(**limits))
    assert record.error == kind
    assert record.error_detail is not None
    assert detail in record.error_detail
    assert record.sent_ns is not None
    assert record.done_ns is not None


async def test_a_port_that_refuses_is_a_connect_error() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening
        records, report = await run(plan(taken.getsockname()[1]), [job(k, "x") for k in range(3)])
    assert [record.error for record in records] == ["connect"] * 3
    assert records[0].sent_ns is None
    assert report.schedule_finished


async def test_a_kept_alive_connection_that_closes_is_resent_once_and_counted() -> None:
    async def closes_on_second(peer: Peer) -> None:
        if peer.served:
            peer.reset()
        else:
            await peer.stream(1)

    async with serving({"x": closes_on_second}) as port:
        records, _ = await run(plan(port), [job(k, "x") for k in range(4)])
    assert [record.error for record in records] == [None] * 4
    assert sum(record.resends for record in records) == 3  # each after the first met a connection used once


async def test_a_request_is_resent_over_a_connection_that_was_never_used() -> None:
    """Some servers close every connection after one answer, whatever they say: another kept one is closed as well."""
    answered: list[int] = []

    async def closes_on_second(peer: Peer) -> None:
        if peer.served:
            peer.reset()
        else:
            answered.append(1)
            while len(answered) < 3:  # three at once, so that three used connections are kept
                await asyncio.sleep(0.001)
            await peer.stream(1)

    async with serving({"x": closes_on_second}) as port:
        records, _ = await run(plan(port, concurrency=3), [job(k, "x") for k in range(12)])
    assert [record.error for record in records] == [None] * 12
    assert sum(record.resends for record in records) >= 1


async def test_a_server_that_closes_what_it_says_it_keeps_is_learnt() -> None:
    async def closes_on_second(peer: Peer) -> None:
        if peer.served:
            peer.reset()
        else:
            await peer.stream(1)

    async with serving({"x": closes_on_second}) as port:
        records, _ = await run(plan(port), [job(k, "x") for k in range(20)])
    assert [record.error for record in records] == [None] * 20
    assert [record.resends for record in records] == [0, 1, 1, 1] + [0] * 16
    assert all(record.connect_ns is not None for record in records)


async def test_a_fresh_connection_that_resets_is_not_resent() -> None:
    async def always(peer: Peer) -> None:
        peer.reset()

    record = await one(always)
    assert record.error == "reset"
    assert record.resends == 0


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nX-Length: %d\r\n\r\n%s",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s",
    ],
    ids=["content-length", "until-close", "after-an-interim-response"],
)
async def test_every_way_of_ending_a_response(answer: bytes) -> None:
    async def ends(peer: Peer) -> None:
        body = event("w", 1, "stop") + DONE
        await peer.send(answer % (len(body), body))
        if b"close" in answer:
            peer.writer.close()

    record = await one(ends)
    assert (record.error, record.output_tokens) == (None, 1)


async def test_bytes_that_come_one_by_one_mean_the_same() -> None:
    async def drip(peer: Peer) -> None:
        whole = HEAD + chunk(event("ä", 1)) + chunk(event("b", 2, "stop") + DONE) + END
        await peer.send(*(whole[k : k + 1] for k in range(len(whole))))

    record = await one(drip)
    assert (record.error, record.output_tokens) == (None, 2)
    assert sum(tokens or 0 for tokens in record.chunk_tokens) == 2  # one chunk or two, as the reads fell


async def test_a_long_answer_is_read_before_it_ends_and_counts_every_token() -> None:
    async def long(peer: Peer) -> None:
        await peer.send(HEAD)
        for k in range(1, 3001):
            peer.writer.write(chunk(event("word " * 10, k, "length" if k == 3000 else None)))
        await peer.send(chunk(DONE), END)

    record = await one(long)
    assert record.error is None
    assert record.output_tokens == sum(tokens or 0 for tokens in record.chunk_tokens) == 3000
    assert record.coalesced_reads > 0


async def test_a_body_larger_than_the_socket_buffer_is_sent_whole() -> None:
    body = b" " * 8_000_000
    async with serving({"x": lambda peer: peer.stream(1)}) as port:
        records, _ = await run(plan(port), [job(0, "x", body=body)])
    assert records[0].error is None


async def test_an_open_loop_keeps_its_schedule_whatever_the_server_does() -> None:
    async def slow(peer: Peer) -> None:
        await asyncio.sleep(0.2)
        await peer.stream(1)

    offsets = [k * 10 * MS for k in range(10)]
    async with serving({"x": slow}) as port:
        made = plan(port, concurrency=None, connections_ahead=10)
        records, report = await run(made, [job(k, "x", offset) for k, offset in enumerate(offsets)])
    assert [record.intended_ns - report.started_ns for record in records] == offsets
    assert all(record.sent_ns is not None and record.sent_ns >= record.intended_ns for record in records)
    # All were sent before the first answer: nobody waited for the server.
    assert max(record.sent_ns or 0 for record in records) < min(record.done_ns or 0 for record in records)


async def test_waiting_for_a_slot_under_a_cap_counts_from_the_intended_time() -> None:
    async def slow(peer: Peer) -> None:
        await asyncio.sleep(0.05)
        await peer.stream(1)

    async with serving({"x": slow}) as port:
        made = plan(port, concurrency=None, max_in_flight=1)
        records, report = await run(made, [job(k, "x", 0) for k in range(3)])
    assert {record.intended_ns for record in records} == {report.started_ns}
    waits = [(record.sent_ns or 0) - record.intended_ns for record in records]
    assert waits[1] > 40 * MS
    assert waits[2] > 80 * MS


async def test_a_closed_loop_counts_only_measured_requests_and_marks_the_warm_up() -> None:
    async with serving({"x": lambda peer: peer.stream(1)}) as port:
        made = plan(port, concurrency=2, warmup_requests=3, measured_requests=5)
        records, report = await run(made, [job(k, "x") for k in range(50)])
    assert [record.phase for record in records] == ["warmup"] * 3 + ["measured"] * 5
    assert report.issued == 8
    assert report.schedule_finished


async def test_the_time_that_counts_begins_after_a_counted_warm_up() -> None:
    """Ten requests of 50 ms each warm up: the 200 ms that count come after them, however long they took."""

    async def slow(peer: Peer) -> None:
        await peer.stream(2, pause_s=0.05)

    async with serving({"x": slow}) as port:
        made = plan(port, warmup_requests=10, duration_ns=200 * MS)
        records, report = await run(made, [job(k, "x") for k in range(50)])
    assert [record.phase for record in records[:10]] == ["warmup"] * 10
    counted = records[10:]
    assert 2 <= len(counted) <= 4
    assert all(record.phase == "measured" and record.error is None for record in counted)
    assert counted[-1].intended_ns - counted[0].intended_ns < 200 * MS
    assert report.schedule_finished


async def test_think_time_moves_the_intended_time() -> None:
    async with serving({"x": lambda peer: peer.stream(1)}) as port:
        records, _ = await run(plan(port), [replace(job(k, "x"), think_ns=30 * MS) for k in range(2)])
    assert records[0].done_ns is not None
    assert records[1].intended_ns == records[0].done_ns + 30 * MS
    assert (records[1].sent_ns or 0) >= records[1].intended_ns


async def test_who_has_sent_nothing_yet_does_not_think_first() -> None:
    async with serving({"x": lambda peer: peer.stream(1)}) as port:
        jobs = [replace(job(k, "x"), think_ns=5_000 * MS) for k in (0, 1)]
        records, report = await run(plan(port, concurrency=2), jobs)
    assert [record.intended_ns for record in records] == [report.started_ns] * 2


async def test_users_start_evenly_spread_over_the_ramp_up() -> None:
    """Four users over 400 ms: each sends one request, and the first one's second is long after."""
    jobs = [replace(job(k, "x"), think_ns=5_000 * MS) for k in range(8)]
    async with serving({"x": lambda peer: peer.stream(1)}) as port:
        made = plan(port, concurrency=4, ramp_up_ns=400 * MS, duration_ns=600 * MS)
        records, report = await run(made, jobs)
    assert [(record.intended_ns - report.started_ns) / MS for record in records] == [0, 100, 200, 300]
    assert all((record.sent_ns or 0) >= record.intended_ns for record in records)


async def test_a_run_that_is_over_waits_for_no_user_to_come() -> None:
    async with serving({"x": lambda peer: peer.stream(1)}) as port:
        made = plan(port, concurrency=2, ramp_up_ns=60_000 * MS, measured_requests=3)
        records, report = await run(made, [job(k, "x") for k in range(9)])
    assert len(records) == 3
    assert report.schedule_finished


async def test_who_still_thinks_when_the_time_is_up_sends_no_more() -> None:
    async with serving({"x": lambda peer: peer.stream(1)}) as port:
        made = plan(port, duration_ns=200 * MS)
        records, report = await run(made, [replace(job(k, "x"), think_ns=400 * MS) for k in range(5)])
    assert len(records) == 1
    assert report.drained


async def test_a_cap_on_requests_per_minute_paces_a_closed_loop_and_says_so() -> None:
    """1,200 a minute are two each tenth of a second, so the last two of ten leave after 0.4 s."""
    async with serving({"x": lambda peer: peer.stream(1)}) as port:
        records, report = await run(
            plan(port, concurrency=4, requests_per_minute=1200), [job(k, "x") for k in range(10)]
        )
    assert [record.error for record in records] == [None] * 10
    assert max(record.intended_ns for record in records) - report.started_ns >= 400 * MS
    assert all((record.sent_ns or 0) >= record.intended_ns for record in records)
    assert report.throttled >= 8
    assert report.throttled_ns > 400 * MS
    assert report.schedule_finished


async def test_what_a_cap_holds_back_beyond_the_warm_up_counts() -> None:
    async with serving({"x": lambda peer: peer.stream(1)}) as port:
        made = plan(port, concurrency=4, requests_per_minute=1200, warmup_ns=250 * MS, measured_requests=6)
        records, report = await run(made, [job(k, "x") for k in range(50)])
    assert [record.phase for record in records].count("measured") == 6
    for record in records:
        assert (record.phase == "warmup") == (record.intended_ns < report.started_ns + 250 * MS)
    assert records[-1].request_id == report.issued - 1  # none was left out


@pytest.mark.parametrize("stop_after_s", [None, 2.0])
async def test_what_a_cap_still_holds_back_at_the_end_is_never_sent(stop_after_s: float | None) -> None:
    async with serving({"x": lambda peer: peer.stream(1)}) as port:
        duration_ns = 200 * MS if stop_after_s is None else None
        made = plan(port, concurrency=3, requests_per_minute=1, duration_ns=duration_ns)
        records, report = await run(made, [job(k, "x") for k in range(9)], stop_after_s)
    assert [record.error for record in records] == [None]
    assert report.issued == 1
    assert report.drained


async def test_stopping_abandons_what_is_in_flight_and_keeps_what_is_finished() -> None:
    async with serving({"fast": lambda peer: peer.stream(1), "never": never}) as port:
        made = plan(port, concurrency=2, drain_ns=0)
        records, report = await run(made, [job(0, "fast"), *(job(k, "never") for k in (1, 2))], stop_after_s=0.3)
    assert [record.error for record in records] == [None, "abandoned", "abandoned"]
    assert report.stop_reason == "interrupted"
    assert not report.drained
    assert not report.schedule_finished


async def test_each_request_may_open_its_own_connection() -> None:
    async with serving({"x": lambda peer: peer.stream(1)}) as port:
        records, _ = await run(plan(port, fresh_connections=True), [job(k, "x") for k in range(3)])
    assert len({record.connect_ns for record in records}) == 3
    for record in records:
        assert record.connect_started_ns is not None
        assert record.connect_started_ns >= record.intended_ns


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


async def test_tls_is_verified_and_still_stamped_by_the_kernel(
    authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    bundle = tmp_path_factory.mktemp("ca") / "ca.pem"
    authority.cert_pem.write_to_path(str(bundle))
    async with serving({"x": lambda peer: peer.stream(3)}, context) as port:
        trusted, _ = await run(plan(port, tls=True, cacert=str(bundle)), [job(0, "x")])
        unknown, _ = await run(plan(port, tls=True), [job(0, "x")])
        unchecked, _ = await run(plan(port, tls=True, insecure=True), [job(0, "x")])
    assert (trusted[0].error, trusted[0].output_tokens, trusted[0].stamp) == (None, 3, "kernel")
    assert unknown[0].error == "connect"
    assert "certificate verify failed" in (unknown[0].error_detail or "")
    assert unchecked[0].error is None
