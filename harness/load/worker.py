"""A worker process: `python -m servemark.harness.load.worker FD`, which speaks to its coordinator over that socket.

It prints nothing and writes no file. When the coordinator is gone, it stops sending and ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import socket
import sys

import uvloop

from servemark.harness.load.jobs import JobQueue
from servemark.harness.load.messages import (
    Begin,
    EndOfJobs,
    Finished,
    Job,
    Plan,
    Ready,
    Report,
    SessionOver,
    Started,
    Stop,
    Taken,
    decode_to_worker,
    frame,
    read_frame,
)
from servemark.harness.load.runner import Runner
from servemark.harness.server.discovery import load_adapter
from servemark.harness.types import Record

_PRIORITY = -10


class Worker:
    def __init__(self, stream: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._stream = stream
        self._writer = writer
        self._begin = asyncio.Event()
        self._jobs = JobQueue(lambda count: self._tell(Taken(count)))

    async def work(self) -> None:
        body = await read_frame(self._stream)
        if body is None:
            return
        plan = decode_to_worker(body)
        assert isinstance(plan, Plan)
        runner = Runner(plan, load_adapter(plan.adapter), self._jobs, self._record, self._tell, self._turn)
        preparing = asyncio.create_task(runner.prepare())
        listening = asyncio.create_task(self._listen(runner, preparing))
        await asyncio.wait([preparing])
        connections = 0 if preparing.cancelled() else preparing.result()
        self._tell(Ready(connections=connections, stamp="kernel" if sys.platform == "linux" else "user"))
        await self._begin.wait()
        report = await runner.run(lambda mono, wall: self._tell(Started(mono, wall)))
        self._tell(Report(report))
        # The coordinator hangs up when it has read all of it. Were we first, a job that it still sends would fail, and
        # with it its end of the connection and all that it had not read.
        await listening

    async def _listen(self, runner: Runner, preparing: asyncio.Task[int]) -> None:
        while (body := await read_frame(self._stream)) is not None:
            message = decode_to_worker(body)
            if isinstance(message, Job):
                if message.due_ns is None:
                    self._jobs.put(message)
                else:
                    runner.follow(message)
            elif isinstance(message, SessionOver):
                runner.over(message.session_id)
            elif isinstance(message, EndOfJobs):
                self._jobs.end()
            elif isinstance(message, Begin):
                self._begin.set()
            elif isinstance(message, Stop):
                runner.stop(message.drain_ns, message.reason)
                preparing.cancel()
        runner.stop(0)
        preparing.cancel()
        self._begin.set()

    def _record(self, record: Record) -> None:
        self._tell(Finished(record))

    def _turn(self, record: Record, answer: str | None) -> None:
        self._tell(Finished(record, answer))

    def _tell(self, message: object) -> None:
        if not self._writer.is_closing():
            self._writer.write(frame(message))


async def _main(fd: int) -> None:
    stream, writer = await asyncio.open_connection(sock=socket.socket(fileno=fd))
    try:
        await Worker(stream, writer).work()
    finally:
        writer.close()


def main() -> None:
    # Ctrl-C, `timeout` and a hang-up reach the whole process group; the coordinator decides what they mean.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    # A late send is a false measurement, and this process needs little: it goes first where that is allowed.
    with contextlib.suppress(OSError):
        os.nice(_PRIORITY)
    uvloop.run(_main(int(sys.argv[1])))


if __name__ == "__main__":
    main()
