"""Keeps a program for another process, and ends all that it started when that process is gone, however it went.

A program of its own that imports nothing of ours. It speaks lines of JSON:

    stdin    {"command": [...], "folder": "...", "log": "...", "secrets": [...], "patience_s": 20}, then at any time
             {"log": "..."}: write on there, beginning with what was said before the first such line
    stdout   {"pid": 4711} or {"failed": "why it did not start"}, then {"exit": 1} (-9: ended by signal 9)

The end of stdin asks the program to end (SIGTERM), and makes it end when it has not within its patience; SIGTERM to the
keeper makes it end at once. What is left of its tree then has a moment to clean up, and is killed. `folder` is where
the program runs; it is removed in the end.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import selectors
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

GRACE_S = 2.0  # for what a program leaves behind: Python's resource tracker removes shared memory then
HOPELESS_S = 30.0  # a process that does not end by SIGKILL hangs in the kernel
LARGEST_LOG = 64 * 1024 * 1024
KEPT_OF_LOG = 16 * 1024 * 1024
LONGEST_LINE = 64 * 1024
_PIECE = 64 * 1024
_MOST_IN_PIPE = 1024 * 1024  # Linux, fs.pipe-max-size
_LINUX = sys.platform == "linux"
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


class Log:
    """A file of whole lines without secrets. A disk that takes no more costs lines, never the program."""

    def __init__(self, path: str, secrets: list[str]) -> None:
        # Longest first: one secret may be part of another.
        self._secrets = sorted((secret.encode() for secret in secrets), key=len, reverse=True)
        self._first = path
        self._path = path
        self._size = 0
        self._line = b""
        self._file = open(path, "ab", buffering=0)  # noqa: SIM115

    def write(self, data: bytes) -> None:
        """A line ends with a new line or, as progress bars write it, with a carriage return."""
        held = self._line + data
        cut = max(held.rfind(b"\n"), held.rfind(b"\r")) + 1
        if len(held) - cut > LONGEST_LINE:
            cut = len(held)
        self._line = held[cut:]
        self._put(held[:cut])

    def flush(self) -> None:
        held, self._line = self._line, b""
        self._put(held)

    def close(self) -> None:
        self.flush()
        self._file.close()

    def move(self, path: str) -> None:
        """Writes on elsewhere, after what was said before the first move."""
        self.flush()
        with contextlib.suppress(OSError):
            shutil.copyfile(self._first, path)
            moved = open(path, "ab", buffering=0)  # noqa: SIM115
            self._file.close()
            self._file, self._path, self._size = moved, path, os.path.getsize(path)

    def _put(self, data: bytes) -> None:
        for secret in self._secrets:
            data = data.replace(secret, b"[redacted]")
        with contextlib.suppress(OSError):
            self._file.write(data)
            self._size += len(data)
            if self._size > LARGEST_LOG:
                self._shorten()

    def _shorten(self) -> None:
        with open(self._path, "rb+") as file:
            file.seek(-KEPT_OF_LOG, os.SEEK_END)
            kept = file.read()
            file.seek(0)
            file.write(b"[the beginning was left out: the log grew too long]\n" + kept)
            file.truncate()
            self._size = file.tell()


class Keeper:
    """One program, from its start to the end of its tree."""

    def __init__(self, order: dict[str, Any], orders: Iterator[dict[str, Any] | None]) -> None:
        self._orders = orders
        self._log = Log(order["log"], order["secrets"])
        self._patience_s: float = order["patience_s"]
        self._asked_to_end = False
        self._end_at_s: float | None = None
        self._exited_at_s: float | None = None
        self._selector = selectors.DefaultSelector()
        self._wake, self._waker = os.pipe()
        self._watch_signals()
        self._child = subprocess.Popen(  # noqa: S603
            order["command"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=order["folder"],
            start_new_session=True,  # an engine that ends its own process group must not end its keeper
            preexec_fn=_die_with_parent if _LINUX else None,
        )
        assert self._child.stdout is not None
        self._output = self._child.stdout.fileno()
        os.set_blocking(self._output, False)
        self._selector.register(self._output, selectors.EVENT_READ, self._read_output)
        self._selector.register(sys.stdin.fileno(), selectors.EVENT_READ, self._read_orders)
        self._selector.register(self._wake, selectors.EVENT_READ, lambda: os.read(self._wake, 4096))
        tell({"pid": self._child.pid})

    def _watch_signals(self) -> None:
        for end in (self._wake, self._waker):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, lambda *_: self._end(0.0))

    def keep(self) -> None:
        """Until the other process wants it no more and nothing of it runs."""
        while True:
            self._reap()
            left = self._left()
            if self._asked_to_end and not left:
                return
            for key, _ in self._selector.select(self._pause_s(left)):
                key.data()

    def _left(self) -> list[int]:
        """What still runs once the program has ended or is to end; it is killed when its time is over."""
        if self._exited_at_s is None:
            if self._end_at_s is not None and time.monotonic() >= self._end_at_s:
                self._kill([self._child.pid])
            return [self._child.pid]
        left = tree_of(os.getpid())
        over_s = time.monotonic() - self._exited_at_s
        if over_s > GRACE_S + HOPELESS_S:
            return []
        if over_s > GRACE_S:
            self._kill(left)
        return left

    def _pause_s(self, left: list[int]) -> float | None:
        """None is until something happens."""
        if self._exited_at_s is not None:
            return 0.03 if left else None
        if self._end_at_s is None:
            return None
        return max(0.03, self._end_at_s - time.monotonic())

    def _end(self, patience_s: float) -> None:
        self._asked_to_end = True
        if self._end_at_s is None and patience_s:
            self._kill([self._child.pid], signal.SIGTERM)
        self._end_at_s = min(self._end_at_s or float("inf"), time.monotonic() + patience_s)

    def _kill(self, pids: list[int], number: signal.Signals = signal.SIGKILL) -> None:
        for pid in pids:
            if pid != self._child.pid or self._child.returncode is None:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, number)

    def _reap(self) -> None:
        """All that has ended: as the reaper of the whole tree it inherits orphans too."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self._child.pid:
                self._exited(os.waitstatus_to_exitcode(status))

    def _exited(self, code: int) -> None:
        self._child.returncode = code
        self._exited_at_s = time.monotonic()
        self._read_output()
        self._log.flush()
        if not _LINUX:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._child.pid, signal.SIGKILL)
        tell({"exit": code})

    def _read_output(self) -> None:
        """All that was there; who writes without a pause is read on after a look at the rest."""
        with contextlib.suppress(BlockingIOError):
            for _ in range(_MOST_IN_PIPE // _PIECE):
                data = os.read(self._output, _PIECE)
                if not data:
                    break
                self._log.write(data)
            else:
                return
            if self._output in self._selector.get_map():
                self._selector.unregister(self._output)
            self._log.flush()

    def _read_orders(self) -> None:
        order = next(self._orders)
        if order is None:
            self._selector.unregister(sys.stdin.fileno())
            self._end(self._patience_s)
        elif "log" in order:
            self._log.move(order["log"])


def orders() -> Iterator[dict[str, Any] | None]:
    """One a line; None at the end. Each is waited for, and none is read ahead: the rest must wake the selector."""
    while True:
        line = b""
        while not line.endswith(b"\n"):
            byte = os.read(sys.stdin.fileno(), 1)
            if not byte:
                yield None
                return
            line += byte
        yield json.loads(line)


def tell(message: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):  # nobody may be there to read it
        os.write(sys.stdout.fileno(), json.dumps(message).encode() + b"\n")


def tree_of(root: int) -> list[int]:
    """The processes that run below one, wherever they put themselves; none where there is no /proc."""
    below: dict[int, list[int]] = {}
    for name in os.listdir("/proc") if os.path.isdir("/proc/self") else ():
        with contextlib.suppress(OSError, ValueError):
            with open(f"/proc/{name}/stat", "rb") as file:
                state, parent = file.read().rpartition(b")")[2].split()[:2]
            if name.isdigit() and state not in (b"Z", b"X"):
                below.setdefault(int(parent), []).append(int(name))
    found, next_ones = [], below.get(root, [])
    while next_ones:
        found += next_ones
        next_ones = [child for pid in next_ones for child in below.get(pid, [])]
    return found


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _die_with_parent() -> None:
    """In the program itself, before it begins: not even a killed keeper leaves it behind."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def main() -> None:
    for number in (signal.SIGINT, signal.SIGHUP):  # meant for whoever started this; ignored ones would be inherited
        signal.signal(number, lambda *_: None)
    if _LINUX:
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    lines = orders()
    order = next(lines)
    if order is None:
        return
    try:
        Keeper(order, lines).keep()
    except OSError as error:
        tell({"failed": error.strerror or str(error)})
    finally:
        shutil.rmtree(order["folder"], ignore_errors=True)


if __name__ == "__main__":
    main()
