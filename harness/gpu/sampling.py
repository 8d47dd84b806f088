"""The sampler: `python -m servemark.harness.gpu.sampling SETTINGS`, a process of its own beside a run.

It reads NVML each period until its stdin closes, that is until the run wants it to end or is gone itself. SETTINGS is
JSON, {"period_s": 0.2, "chosen": ["0"]}. On stdout, a line each:

    {"facts": {...}}                                    when opened, whenever something new is known, and in the end
    {"samples": [[at_ns, gpu, {...}], ...], "cpu_s": 0.4}
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import sys
import time
from typing import Any

from servemark.harness.clock import SECOND, now_ns
from servemark.harness.gpu.nvml import Reader

_NICE = 5
_PR_SET_PDEATHSIG = 1


class Sampler:
    """Readings at whole periods from the first one; one that took too long skips the moments it missed."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._facts: dict[str, Any] = {}

    def run(self) -> None:
        self._tell_facts()
        due_ns, period_ns = now_ns(), round(self._reader.period_s * SECOND)
        while self._reader.alive:
            self._read()
            due_ns += period_ns * max(1, -(-(now_ns() - due_ns) // period_ns))
            if _closed(sys.stdin.fileno(), due_ns):
                self._read()
                break
        self._tell_end()

    def _read(self) -> None:
        samples = [[sample.at_ns, sample.gpu, sample.values] for sample in self._reader.read()]
        _tell({"samples": samples, "cpu_s": time.process_time()})
        self._tell_facts()

    def _tell_facts(self) -> None:
        """Where they differ from those told last; the count of samples grows and is no news."""
        facts = self._reader.facts()
        if {**facts, "samples": 0} != {**self._facts, "samples": 0}:
            self._facts = facts
            _tell({"facts": facts})

    def _tell_end(self) -> None:
        _tell({"facts": self._reader.facts(), "cpu_s": time.process_time()})


def _tell(message: dict[str, Any]) -> None:
    """One write of a whole line: who is killed leaves no half one unless it is longer than a pipe takes at once."""
    line = json.dumps(message, separators=(",", ":")).encode() + b"\n"
    while line:
        line = line[os.write(sys.stdout.fileno(), line) :]


def _closed(fd: int, until_ns: int) -> bool:
    """Waits until then; true as soon as nobody holds the other end any more."""
    while (left_ns := until_ns - now_ns()) > 0:
        if select.select([fd], [], [], left_ns / SECOND)[0] and not os.read(fd, 4096):
            return True
    return False


def _stand_back() -> None:
    """Leaves the signals of a terminal to the run, goes behind the load generator, and ends with the run."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    with contextlib.suppress(OSError):
        os.nice(_NICE)
    if sys.platform == "linux":
        # Hung in the driver it would not see its stdin close.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def main() -> None:
    _stand_back()
    settings = json.loads(sys.argv[1])
    with contextlib.suppress(BrokenPipeError):
        Sampler(Reader(settings["period_s"], settings["chosen"])).run()


if __name__ == "__main__":
    main()
