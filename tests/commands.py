"""`bench` as a call in this process, and as a process of its own that a test can do bad things to."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from servemark.adapters.sim import ADAPTER
from servemark.harness.cli import main
from servemark.harness.server.control import Control
from servemark.harness.types import HttpRequest

# What a busy machine may do to a run is not what these tests are about.
TOLERANT = tuple(
    word
    for code in ("client_lag", "late_jobs", "loop_stalls", "client_cpu", "coalesced_reads", "requests_sent")
    for word in ("--allow", code)
)
# A suite that runs in the background of a script, or under nohup, has signals ignored, and so would its commands.
_AS_FROM_A_TERMINAL = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
    "signal.signal(signal.SIGHUP, signal.SIG_DFL);"
)
BENCH = (sys.executable, "-P", "-c", f"{_AS_FROM_A_TERMINAL} from servemark.harness.cli import main; main()")
PATIENCE_S = 60.0


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str


def bench(*words: str) -> Said:
    """The command, called in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(list(words))
        except SystemExit as ended:
            return Said(int(ended.code or 0), out.getvalue(), err.getvalue())
    raise AssertionError("main did not exit")


def run_json(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "run.json").read_text())
    return found


def check(run: dict[str, Any], code: str) -> str:
    """The severity of one check of the verdict."""
    return next(str(each["severity"]) for each in run["verdict"]["checks"] if each["code"] == code)


class Process:
    """A `bench` in a process group of its own."""

    def __init__(self, *words: str, program: tuple[str, ...] = BENCH, stdout: int = subprocess.PIPE) -> None:
        self._popen = subprocess.Popen(
            [*program, *words],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.pid = self._popen.pid

    def signal(self, number: signal.Signals) -> None:
        self._popen.send_signal(number)

    def signal_group(self, number: signal.Signals) -> None:
        os.killpg(self.pid, number)

    def children(self) -> dict[str, int]:
        """Its processes: "worker" and, where it started one, "sim"."""
        found = {}
        for each in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split():
            words = Path(f"/proc/{each}/cmdline").read_bytes()
            for name, module in (("worker", b"servemark.harness.load.worker"), ("sim", b"servemark.adapters.sim")):
                if module in words:
                    found[name] = int(each)
        return found

    def close(self, stream: str) -> None:
        """Nobody reads its stdout (or stderr) any more, as after `| head`."""
        getattr(self._popen, stream).close()
        setattr(self._popen, stream, None)

    def end(self) -> Said:
        """Waits for its end."""
        out, err = self._popen.communicate(timeout=PATIENCE_S)
        return Said(self._popen.returncode, out or "", err or "")

    def stop(self) -> None:
        if self._popen.poll() is None:
            self._popen.kill()
        self._popen.communicate(timeout=PATIENCE_S)


@contextlib.contextmanager
def started(*words: str, program: tuple[str, ...] = BENCH, stdout: int = subprocess.PIPE) -> Iterator[Process]:
    process = Process(*words, program=program, stdout=stdout)
    try:
        yield process
    finally:
        process.stop()


def wait_until(true: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {PATIENCE_S:g} s in vain until {what}")
        time.sleep(0.02)


def told(url: str, name: str) -> float:
    """What the built-in target's own metrics say under one of our names."""
    with Control(url) as control:
        _, body = control.ask(HttpRequest("GET", "/metrics"))
    return ADAPTER.metrics[0].reader()(body)[name]


def journal(folder: Path) -> list[dict[str, Any]]:
    """The whole lines of a run's journal so far."""
    path = folder / "records.jsonl"
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]


def alive(pid: int) -> bool:
    """Whether a process runs still; one that has ended and is not yet waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False
