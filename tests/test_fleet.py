"""A worker process and its coordinator: bounded look-ahead, lost workers, failing feeds, stops at any moment."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Iterator

import pytest

from servemark.harness.errors import BadInput
from servemark.harness.load import fleet as fleet_module
from servemark.harness.load.fleet import Fleet
from servemark.harness.load.messages import (
    Address,
    Begin,
    EndOfJobs,
    Job,
    Plan,
    Report,
    Started,
    Status,
    Timeouts,
    decode_to_coordinator,
    read_frame,
)
from servemark.harness.types import Record, WorkerReport
from tests.commands import alive
from tests.scripted_server import Behaviour, Peer, serving

SECOND = 1_000_000_000
PATIENCE_S = 60


def job(index: int, name: str = "x", size: int = 2) -> Job:
    head = f"POST /{name} HTTP/1.1\r\nHost: t\r\nContent-Length: {size}\r\n\r\n"
    return Job(index, None, head.encode() + b"x" * size, asked_output_tokens=3)


class Run:
    """A fleet against one behaviour, and what it said."""

    def __init__(self, port: int, jobs: Iterator[Job], **fields: object) -> None:
        self.records: list[Record] = []
        self.statuses: list[Status] = []
        self.begun: list[Started] = []
        plan: dict[str, object] = {"concurrency": 2, "connections_ahead": 2, "timeouts": Timeouts(), **fields}
        address = Address(f"http://127.0.0.1:{port}", "127.0.0.1", port, False)
        self.fleet = Fleet(
            Plan(0, (address,), "vllm", "sse", "chat", **plan),  # type: ignore[arg-type]
            jobs,
            on_record=self.records.append,
            on_status=self.statuses.append,
            on_started=self.begun.append,
        )

    async def to_end(self) -> WorkerReport | None:
        return await asyncio.wait_for(self.fleet.run(), PATIENCE_S)

    @property
    def pid(self) -> int:
        process = self.fleet._process
        assert process is not None
        return process.pid

    async def until_records(self, count: int) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while len(self.records) < count:
                await asyncio.sleep(0.01)


async def quick(peer: Peer) -> None:
    await peer.stream(3, 0)


async def hanging(peer: Peer) -> None:
    await asyncio.sleep(3600)


def against(behaviour: Behaviour) -> dict[str, Behaviour]:
    return {"x": behaviour}


async def test_every_job_comes_back_as_a_record_and_then_the_report() -> None:
    async with serving(against(quick)) as port:
        run = Run(port, iter([job(index) for index in range(40)]))
        report = await run.to_end()
    assert report is not None
    assert report.stop_reason == "finished"
    assert (report.issued, report.schedule_finished, report.drained) == (40, True, True)
    assert sorted(record.request_id for record in run.records) == list(range(40))
    assert {record.error for record in run.records} == {None}
    assert run.begun[0].started_ns == report.started_ns
    assert not alive(run.pid)


async def test_a_worker_hangs_up_only_after_its_coordinator() -> None:
    """Were it first, a request that is still being sent would fail and take all that is not yet read with it."""
    async with serving(against(quick)) as port:
        run = Run(port, iter([job(0)]))
        stream = await run.fleet._start()
        for message in (job(0), EndOfJobs(), Begin()):
            run.fleet._tell(message)
        while not isinstance(decode_to_coordinator(await read_frame(stream) or b""), Report):
            pass
        for index in range(1, 200):
            run.fleet._tell(job(index))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(read_frame(stream), 0.3)
        await run.fleet._end()
    assert run.fleet._process is not None
    assert run.fleet._process.returncode == 0


async def test_a_stop_does_not_wait_for_connections() -> None:
    """A port whose queue is full accepts nobody, and a connect takes as long as it is allowed to."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as deaf:
        port = deaf.getsockname()[1]
        limits = Timeouts(connect_ns=300 * SECOND)
        run = Run(port, (job(index) for index in range(10**9)), connections_ahead=20, timeouts=limits)
        running = asyncio.create_task(run.to_end())
        await asyncio.sleep(0.3)
        run.fleet.stop(0)
        report = await running
    assert report is not None
    assert report.issued == 0


async def test_the_look_ahead_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet_module, "JOBS_AHEAD", 64)
    pulled: list[int] = []

    def endless() -> Iterator[Job]:
        index = 0
        while True:
            pulled.append(index)
            yield job(index)
            index += 1

    async with serving(against(hanging)) as port:
        run = Run(port, endless())
        running = asyncio.create_task(run.to_end())
        async with asyncio.timeout(PATIENCE_S):
            while not run.begun:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.2)
        assert 64 <= len(pulled) <= 64 + 2 + 1  # and those in flight, and the one that waits for room
        run.fleet.stop(0)
        report = await running
    assert report is not None
    assert [record.error for record in run.records] == ["abandoned"] * 2


async def test_a_look_ahead_bounded_in_bytes_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """So few requests fit that the worker's word of every 32nd would never come."""
    monkeypatch.setattr(fleet_module, "BYTES_AHEAD", 10_000)
    async with serving(against(quick)) as port:
        run = Run(port, iter([job(index, size=4000) for index in range(50)]))
        report = await run.to_end()
    assert report is not None
    assert report.schedule_finished
    assert len(run.records) == 50


async def test_a_worker_that_is_killed_ends_the_run_without_a_report() -> None:
    async with serving(against(quick)) as port:
        run = Run(port, (job(index) for index in range(10**9)), duration_ns=300 * SECOND)
        running = asyncio.create_task(run.to_end())
        await run.until_records(5)
        os.kill(run.pid, signal.SIGKILL)
        assert await running is None
    assert len(run.records) >= 5


async def test_a_feed_that_fails_stops_the_load_and_is_raised_when_it_has_ended() -> None:
    def failing() -> Iterator[Job]:
        yield from (job(index) for index in range(5))
        raise BadInput("request 5 is wrong")

    async with serving(against(quick)) as port:
        run = Run(port, failing(), duration_ns=300 * SECOND)
        with pytest.raises(BadInput, match="request 5 is wrong"):
            await run.to_end()
    assert not alive(run.pid)


async def test_what_cannot_be_recorded_ends_the_run_and_the_worker() -> None:
    async with serving(against(quick)) as port:
        run = Run(port, (job(index) for index in range(10**9)), duration_ns=300 * SECOND)
        run.fleet._on_record = full
        with pytest.raises(OSError, match="no room"):
            await run.to_end()
    assert not alive(run.pid)


def full(record: Record) -> None:
    raise OSError("no room")


@pytest.mark.parametrize("turns", [0, 1, 2, 5])
async def test_a_stop_before_there_is_a_worker_is_not_forgotten(turns: int) -> None:
    async with serving(against(quick)) as port:
        run = Run(port, (job(index) for index in range(10**9)), duration_ns=300 * SECOND)
        running = asyncio.create_task(run.to_end())
        for _ in range(turns):
            await asyncio.sleep(0)
        run.fleet.stop(0)
        report = await running
    assert report is not None
    assert report.stop_reason == "interrupted"
    assert not report.schedule_finished


async def test_a_second_stop_shortens_the_drain() -> None:
    async with serving(against(hanging)) as port:
        run = Run(port, (job(index) for index in range(10**9)), duration_ns=300 * SECOND)
        running = asyncio.create_task(run.to_end())
        async with asyncio.timeout(PATIENCE_S):
            while not any(status.in_flight for status in run.statuses):
                await asyncio.sleep(0.01)
        run.fleet.stop(300 * SECOND)
        await asyncio.sleep(0.05)
        assert not running.done()
        run.fleet.stop(0)
        report = await running
    assert report is not None
    assert not report.drained
    assert [record.error for record in run.records] == ["abandoned"] * 2


async def test_a_cancelled_run_leaves_no_process() -> None:
    async with serving(against(quick)) as port:
        run = Run(port, (job(index) for index in range(10**9)), duration_ns=300 * SECOND)
        running = asyncio.create_task(run.fleet.run())
        await run.until_records(1)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    assert not alive(run.pid)
