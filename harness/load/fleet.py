"""The coordinating side: starts a worker process, keeps its look-ahead filled, and hands on what comes back.

Requests are encoded here, in another process than the one that stamps, so encoding never holds up a stamp or a send.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

from servemark.harness.clock import SECOND
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
    Status,
    Stop,
    Taken,
    decode_to_coordinator,
    frame,
    read_frame,
)
from servemark.harness.types import Record, StopReason, WorkerReport

JOBS_AHEAD = 512
_PATIENCE_S = 10.0  # after the drain, for a worker that was told to stop
BYTES_AHEAD = 64 * 1024 * 1024


Follow = Callable[[Record, str | None], Job | SessionOver | None]
"""What follows a turn that has ended, with its answer's text where it has succeeded; None where nothing was to."""


def nothing_follows(record: Record, answer: str | None) -> None:
    """For a load without sessions."""


class Fleet:
    """One worker process and the run that it makes. `jobs` is consumed lazily, never far ahead of the sends.

    The later turns that `follow` makes go to the worker at once: they are bounded by the sessions that are live.
    """

    def __init__(
        self,
        plan: Plan,
        jobs: Iterator[Job],
        *,
        on_record: Callable[[Record], None],
        on_status: Callable[[Status], None],
        on_started: Callable[[Started], None],
        follow: Follow = nothing_follows,
    ) -> None:
        self._plan = plan
        self._jobs = jobs
        self._on_record = on_record
        self._on_status = on_status
        self._on_started = on_started
        self._follow = follow
        self._ended: asyncio.Queue[Finished] = asyncio.Queue()  # turns of sessions
        self._sizes: deque[int] = deque()  # of the jobs that are out and not taken
        self._bytes = 0
        self._taken = 0
        self._room = asyncio.Event()
        self._filled = asyncio.Event()
        self._ready = asyncio.Event()
        self._report: WorkerReport | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._stop: Stop | None = None
        self._patience: asyncio.TimerHandle | None = None
        self._ahead = max(JOBS_AHEAD, 2 * (plan.concurrency or 0))

    async def run(self) -> WorkerReport | None:
        """Runs the plan to its end; None when the worker died on the way."""
        stream = await self._start()
        feeding = asyncio.create_task(self._stopping_where_it_fails(self._feed()))
        following = asyncio.create_task(self._stopping_where_it_fails(self._go_on()))
        beginning = asyncio.create_task(self._begin())
        try:
            await self._listen(stream)
        finally:
            if self._patience is not None:
                self._patience.cancel()
            for task in (feeding, following, beginning):
                task.cancel()
            await asyncio.gather(feeding, following, beginning, return_exceptions=True)
            await self._end()
        for task in (feeding, following):
            if not task.cancelled() and (error := task.exception()) is not None:
                raise error
        return self._report

    def stop(self, drain_ns: int, reason: StopReason = "interrupted") -> None:
        """Asks the worker to send nothing more; again with a shorter drain to end sooner."""
        self._stop = Stop(drain_ns, reason)
        self._tell(self._stop)
        if self._patience is not None:
            self._patience.cancel()
        self._patience = asyncio.get_running_loop().call_later(drain_ns / SECOND + _PATIENCE_S, self._kill)

    def _kill(self) -> None:
        """A worker that does not come to its end is ended: what it has told is kept, and the run is INVALID."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()

    async def _start(self) -> asyncio.StreamReader:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-P", "-m", "servemark.harness.load.worker", str(theirs.fileno()),
                pass_fds=(theirs.fileno(),), stdin=asyncio.subprocess.DEVNULL,
            )  # fmt: skip
        stream, self._writer = await asyncio.open_connection(sock=ours)
        self._tell(self._plan)
        if self._stop is not None:  # asked for before there was a worker to tell
            self._tell(self._stop)
        return stream

    def _tell(self, message: object) -> None:
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(frame(message))

    async def _feed(self) -> None:
        """Encodes ahead, as far as the bounds allow; a look at what has come between any two."""
        for job in self._jobs:
            while len(self._sizes) >= self._ahead or self._bytes >= BYTES_AHEAD:
                self._filled.set()
                self._room.clear()
                await self._room.wait()
            self._sizes.append(job.size)
            self._bytes += job.size
            self._tell(job)
            await asyncio.sleep(0)
        self._tell(EndOfJobs())
        self._filled.set()

    async def _go_on(self) -> None:
        """Encodes what follows each turn of a session as soon as that has ended, in its think time."""
        while True:
            ended = await self._ended.get()
            if self._stop is None and (next_ := self._follow(ended.record, ended.answer)) is not None:
                self._tell(next_)

    async def _stopping_where_it_fails(self, work: Coroutine[Any, Any, None]) -> None:
        """A load that cannot be encoded ends the run; what has ended by then is kept."""
        try:
            await work
        except ConnectionError:
            pass  # the worker is gone; listening ends too
        except asyncio.CancelledError:
            raise
        except BaseException:
            self.stop(0)
            self._filled.set()
            raise

    async def _begin(self) -> None:
        await asyncio.gather(self._filled.wait(), self._ready.wait())
        self._tell(Begin())

    async def _listen(self, stream: asyncio.StreamReader) -> None:
        while self._report is None and (body := await read_frame(stream)) is not None:
            message = decode_to_coordinator(body)
            if isinstance(message, Finished):
                self._on_record(message.record)
                if message.record.session_id is not None:
                    self._ended.put_nowait(message)
            elif isinstance(message, Taken):
                while self._taken < message.jobs:
                    self._taken += 1
                    self._bytes -= self._sizes.popleft()
                self._room.set()
            elif isinstance(message, Status):
                self._on_status(message)
            elif isinstance(message, Started):
                self._on_started(message)
            elif isinstance(message, Ready):
                self._ready.set()
            elif isinstance(message, Report):
                self._report = message.report

    async def _end(self) -> None:
        if self._writer is not None:
            self._writer.close()
        process = self._process
        if process is None:
            return
        try:
            async with asyncio.timeout(5):
                await process.wait()
        except TimeoutError:
            process.send_signal(signal.SIGKILL)
            await process.wait()
