"""The sampler's process as the run sees it: started, listened to, ended. However it goes, the run goes on."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import select
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from typing import IO, Any

from servemark.harness.clock import SECOND, now_ns
from servemark.harness.gpu.library import NO_LIBRARY, library_there
from servemark.harness.plaintext import one_line
from servemark.harness.types import GpuSample

FIRST_WITHIN_S = 5.0
"""A driver that is not kept awake takes seconds to come up; the load does not wait longer than this for it."""
END_WITHIN_S = 2.0
_SILENT_S = 5.0
_PIECE = 1 << 16


class LocalWatch:
    """NVML in another process, at a lower priority, which sends lines of JSON; see `sampling.py`."""

    def __init__(self, period_s: float, chosen: Sequence[str], on_sample: Callable[[GpuSample], None]) -> None:
        self._period_s = period_s
        self._chosen = list(chosen)
        self._on_sample = on_sample
        self._process: subprocess.Popen[bytes] | None = None
        self._errors: IO[bytes] | None = None
        self._began_ns = self._heard_ns = 0
        self._held = b""
        self._open = False
        self._told: dict[str, Any] = {}
        self._notes: list[str] = []
        self._samples = 0
        self._cpu_s: float | None = None

    def begin(self) -> None:
        if not library_there():
            self._notes.append(NO_LIBRARY)
            return
        try:
            self._start()
        except OSError as error:
            self._notes.append(f"the GPU sampler could not be started ({error.strerror or error})")
            return
        self._listen_until(lambda: self._samples > 0, FIRST_WITHIN_S)
        if self._open and not self._samples:
            self._notes.append(f"no GPU had been read {FIRST_WITHIN_S:g} s after the sampler's start: the load began")

    def _start(self) -> None:
        settings = json.dumps({"period_s": self._period_s, "chosen": self._chosen})
        # Into a file: a pipe that nobody empties while the load runs would hold the sampler up.
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-P", "-m", "servemark.harness.gpu.sampling", settings],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors,
        )  # fmt: skip
        assert self._process.stdout is not None
        os.set_blocking(self._process.stdout.fileno(), False)
        self._began_ns = self._heard_ns = now_ns()
        self._open = True

    async def run(self) -> None:
        """A failure of `on_sample` comes out here, not in the loop's own log."""
        loop = asyncio.get_running_loop()
        failed: asyncio.Future[None] = loop.create_future()
        if self._open:
            loop.add_reader(self._fd, self._hear, loop, failed)
        try:
            await failed
        finally:
            if self._open:
                loop.remove_reader(self._fd)

    def _hear(self, loop: asyncio.AbstractEventLoop, failed: asyncio.Future[None]) -> None:
        try:
            self._listen()
        except Exception as error:  # noqa: BLE001 (handed on to who runs this)
            loop.remove_reader(self._fd)
            if not failed.done():
                failed.set_exception(error)
            return
        if not self._open:
            loop.remove_reader(self._fd)

    @property
    def _fd(self) -> int:
        assert self._process is not None
        assert self._process.stdout is not None
        return self._process.stdout.fileno()

    def _listen(self) -> None:
        """Takes what is there; at its end the sampler is gone."""
        try:
            piece = os.read(self._fd, _PIECE)
        except BlockingIOError:
            return
        self._heard_ns = now_ns()
        if not piece:
            self._open = False
            return
        *lines, self._held = (self._held + piece).split(b"\n")
        for line in lines:
            self._take(line)

    def _take(self, line: bytes) -> None:
        try:
            message = json.loads(line)
            samples = [GpuSample(at_ns, gpu, values) for at_ns, gpu, values in message.get("samples", ())]
        except (ValueError, TypeError, AttributeError):  # a driver that prints, or a line cut off
            return
        self._told = message.get("facts", self._told)
        self._cpu_s = message.get("cpu_s", self._cpu_s)
        for sample in samples:
            self._samples += 1
            self._on_sample(sample)

    def _listen_until(self, done: Callable[[], bool], within_s: float) -> None:
        deadline_ns = now_ns() + round(within_s * SECOND)
        while self._open and not done() and (left_ns := deadline_ns - now_ns()) > 0:
            if select.select([self._fd], [], [], left_ns / SECOND)[0]:
                self._listen()

    def _last_words(self) -> str:
        if self._errors is None:
            return ""
        size = self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(0, size - _PIECE))
        lines = self._errors.read().decode("utf-8", "replace").strip().splitlines()
        return one_line(lines[-1]) if lines else ""

    def end(self) -> None:
        process = self._process
        if process is None or process.stdin is None or process.stdin.closed:
            return
        gone, asked_ns = not self._open, now_ns()
        with contextlib.suppress(OSError):
            process.stdin.close()
        self._listen_until(lambda: False, END_WITHIN_S)
        self._open = False
        try:
            left_s = END_WITHIN_S - (now_ns() - asked_ns) / SECOND
            code = process.wait(max(left_s, 0.1))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            self._notes.append(self._hung(asked_ns))
        else:
            if code:
                self._notes.append(self._ended(code, gone))
        if process.stdout is not None:
            process.stdout.close()
        if self._errors is not None:
            self._errors.close()

    def _ended(self, code: int, early: bool) -> str:
        why = self._last_words() or (f"by signal {-code}" if code < 0 else f"exit code {code}")
        when = f" {(self._heard_ns - self._began_ns) / SECOND:.1f} s after its start" if early else ""
        return f"the GPU sampler failed{when} ({why})"

    def _hung(self, asked_ns: int) -> str:
        silent_s = (asked_ns - self._heard_ns) / SECOND
        hung = f": it had told nothing for {silent_s:.1f} s" if silent_s > max(_SILENT_S, 10 * self._period_s) else ""
        return f"the GPU sampler did not end within {END_WITHIN_S:g} s and was killed{hung}"

    def facts(self) -> dict[str, Any]:
        told: dict[str, Any] = {"source": "nvml", "period_s": self._period_s, "gpus": [], "notes": [], "missing": {}}
        told |= self._told
        return told | {
            "samples": self._samples,
            "notes": [*told["notes"], *self._notes],
            "cpu_s": self._cpu_s,
        }
