"""Sleeps to absolute deadlines, with the precision that pacing needs: event loops tick in milliseconds."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import heapq
import itertools
import os
import sys

from servemark.harness.clock import MS, SECOND, now_ns

_SPIN_NS = 2 * MS  # without a timerfd, the end of a wait is spun through the loop


class _Timespec(ctypes.Structure):
    _fields_ = (("tv_sec", ctypes.c_long), ("tv_nsec", ctypes.c_long))


class _Itimerspec(ctypes.Structure):
    _fields_ = (("it_interval", _Timespec), ("it_value", _Timespec))


class _TimerFd:
    """Linux timerfd on CLOCK_MONOTONIC (the os module has it from Python 3.13 on)."""

    _MONOTONIC, _FLAGS, _ABSOLUTE = 1, os.O_NONBLOCK | getattr(os, "O_CLOEXEC", 0), 1

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.fd: int = self._libc.timerfd_create(self._MONOTONIC, self._FLAGS)
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")

    def arm(self, deadline_ns: int) -> None:
        value = _Timespec(deadline_ns // SECOND, deadline_ns % SECOND)
        self._libc.timerfd_settime(self.fd, self._ABSOLUTE, ctypes.byref(_Itimerspec(_Timespec(0, 0), value)), None)

    def drain(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self.fd, 8)


class Pacer:
    """`await until(deadline_ns)` for any number of waiters."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._order = itertools.count()
        self._timer = _TimerFd() if sys.platform == "linux" else None
        if self._timer is not None:
            self._loop.add_reader(self._timer.fd, self._fired)

    async def until(self, deadline_ns: int) -> None:
        """Returns at once when the deadline has passed."""
        if deadline_ns <= now_ns():
            return
        if self._timer is None:
            await self._spin_until(deadline_ns)
            return
        future = self._loop.create_future()
        heapq.heappush(self._waiting, (deadline_ns, next(self._order), future))
        if self._waiting[0][2] is future:
            self._timer.arm(deadline_ns)
        await future

    async def _spin_until(self, deadline_ns: int) -> None:
        coarse_ns = deadline_ns - _SPIN_NS - now_ns()
        if coarse_ns > 0:
            await asyncio.sleep(coarse_ns / SECOND)
        while now_ns() < deadline_ns:
            await asyncio.sleep(0)

    def _fired(self) -> None:
        assert self._timer is not None
        self._timer.drain()
        now = now_ns()
        while self._waiting and self._waiting[0][0] <= now:
            _, _, future = heapq.heappop(self._waiting)
            if not future.done():
                future.set_result(None)
        if self._waiting:
            self._timer.arm(self._waiting[0][0])

    def close(self) -> None:
        for _, _, future in self._waiting:
            future.cancel()
        self._waiting.clear()
        if self._timer is not None:
            self._loop.remove_reader(self._timer.fd)
            os.close(self._timer.fd)
            self._timer = None
