"""Runs a command until stdin closes, then ends it and everything that it started.

Stdin closes when whoever started this ends, however that happens, so no server outlives its test run. It stands in a
process group of its own, which the command's processes share, and on the last core that it may use: a load generator
beside it has the others.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

PATIENCE_S = 20.0


def end_at_eof(child: subprocess.Popen[bytes]) -> None:
    sys.stdin.buffer.read()
    child.terminate()
    try:
        child.wait(PATIENCE_S)
    finally:
        end_group()


def stay_on_last_core() -> None:
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def end_group() -> None:
    """This process is part of it."""
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    stay_on_last_core()
    child = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
    threading.Thread(target=end_at_eof, args=(child,), daemon=True).start()
    print(f"\nthe server ended with {child.wait()}", flush=True)
    end_group()
