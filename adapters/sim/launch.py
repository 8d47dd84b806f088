"""Starts the simulated server in a process of its own and stops it again. Light: it imports none of the server."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from typing import IO, Final

from servemark.adapters.sim.options import SimOptions, command_line
from servemark.harness.errors import TargetUnusable

_READY: Final = b"listening "
_TAIL_BYTES: Final = 2000


@dataclass(slots=True)
class LocalServer:
    """A server that this process started. It ends with `stop`, or when this process ends, however that happens."""

    process: subprocess.Popen[bytes]
    url: str
    _stderr: IO[bytes]

    def stop(self, patience_s: float = 5.0) -> None:
        """Asks it to end, and makes it end when it does not. Twice does no harm."""
        _end(self.process, patience_s)
        self._stderr.close()

    def __enter__(self) -> LocalServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def launch(options: SimOptions | None = None, timeout_s: float = 30.0) -> LocalServer:
    """A running server on a free port of this machine; TargetUnusable, with its last words, when it does not start."""
    wanted = replace(options or SimOptions(), port=0, die_with_parent=True)
    stderr = tempfile.TemporaryFile()  # noqa: SIM115
    process = subprocess.Popen(  # noqa: S603
        [sys.executable, "-P", "-m", "servemark.adapters.sim", *command_line(wanted)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=stderr,
        start_new_session=True,  # Ctrl-C is for the client, which still wants to drain
    )
    line = _first_line(process, timeout_s)
    if line is None or not line.startswith(_READY):
        _end(process, 1.0)
        stderr.seek(max(0, os.fstat(stderr.fileno()).st_size - _TAIL_BYTES))
        tail = stderr.read().decode("utf-8", "replace").strip()
        stderr.close()
        end = "ended" if line == b"" else f"was not ready within {timeout_s:g} s"
        raise TargetUnusable(f"the built-in target did not start; its process {end}: {tail or 'it said nothing'}")
    return LocalServer(process, line[len(_READY) :].decode().strip(), stderr)


def _first_line(process: subprocess.Popen[bytes], timeout_s: float) -> bytes | None:
    """The first line of its output, b"" when it ended before one, None when it took too long."""
    assert process.stdout is not None
    deadline, line = time.monotonic() + timeout_s, b""
    while not line.endswith(b"\n"):
        readable, _, _ = select.select([process.stdout], [], [], max(0.0, deadline - time.monotonic()))
        if not readable:
            return None
        data = os.read(process.stdout.fileno(), 4096)
        if not data:
            return b""
        line += data
    return line


def _end(process: subprocess.Popen[bytes], patience_s: float) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(patience_s)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
