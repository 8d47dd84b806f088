"""Sleeps to absolute deadlines, with the precision that pacing needs: event loops tick in milliseconds."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import heapq
import itertools
import os
import sys
from collections.abc import Callable

from servemark.harness.clock import MS, SECOND, now_ns

_SPIN_NS = MS  # before a deadline, at most
_TICK_NS = 3 * MS  # likewise, where the timer ticks in milliseconds


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

    def close(self) -> None:
        os.close(self.fd)


class _LoopTimer:
    """Where there is no timerfd: the event loop's own timer, which ticks in milliseconds."""

    def __init__(self, loop: asyncio.AbstractEventLoop, fired: Callable[[], None]) -> None:
        self._loop = loop
        self._fired = fired
        self._handle: asyncio.TimerHandle | None = None

    def arm(self, deadline_ns: int) -> None:
        self.close()
        self._handle = self._loop.call_later(max(0, deadline_ns - now_ns()) / SECOND, self._fired)

    def drain(self) -> None:
        pass

    def close(self) -> None:
        if self._handle is not None:
            self._handle.cancel()


class Pacer:
    """`await until(deadline_ns)` for any number of waiters.

    A timer wakes the loop a little before a deadline, and the rest is spun through the loop, which goes on serving its
    sockets: a processor that has gone to sleep, on a virtual machine above all, wakes some 0.1 ms late.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._order = itertools.count()
        self._last_ns = 0
        self._spinning = False
        self._closed = False
        if sys.platform == "linux":
            self._timer: _TimerFd | _LoopTimer = _TimerFd()
            self._loop.add_reader(self._timer.fd, self._fired)
        else:
            self._timer = _LoopTimer(self._loop, self._fired)

    @property
    def due_soon(self) -> bool:
        """A deadline is so near that other work had better wait for it."""
        return self._spinning

    async def until(self, deadline_ns: int) -> None:
        """Returns at once when the deadline has passed."""
        if deadline_ns <= now_ns():
            return
        future = self._loop.create_future()
        heapq.heappush(self._waiting, (deadline_ns, next(self._order), future))
        if self._waiting[0][2] is future:
            self._timer.arm(deadline_ns - self._lead_ns())
        await future

    def _lead_ns(self) -> int:
        """How long to spin before the next deadline: never more than a tenth of the time between deadlines."""
        gap_ns = self._waiting[0][0] - self._last_ns
        return min(_TICK_NS if isinstance(self._timer, _LoopTimer) else _SPIN_NS, gap_ns // 10)

    def _fired(self) -> None:
        self._timer.drain()
        if not self._spinning:
            self._release()

    def _release(self) -> None:
        self._spinning = False
        now = now_ns()
        while self._waiting and self._waiting[0][0] <= now:
            self._last_ns, _, future = heapq.heappop(self._waiting)
            if not future.done():
                future.set_result(None)
        if not self._waiting or self._closed:
            return
        wake_ns = self._waiting[0][0] - self._lead_ns()
        if wake_ns > now:
            self._timer.arm(wake_ns)
        else:
            self._spinning = True
            self._loop.call_soon(self._release)

    def close(self) -> None:
        for _, _, future in self._waiting:
            future.cancel()
        self._waiting.clear()
        if self._closed:
            return
        self._closed = True
        if isinstance(self._timer, _TimerFd):
            self._loop.remove_reader(self._timer.fd)
        self._timer.close()
