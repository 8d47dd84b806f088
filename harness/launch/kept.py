"""A program under a keeper: it ends, with all that it started, when this process ends, however that happens."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from servemark.harness.clock import SECOND, now_ns
from servemark.harness.launch import keeper

PATIENCE_S = 20.0
_TAIL_BYTES = 32 * 1024
_LONGEST_SHOWN = 200
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[@-Z\\-_])")


@dataclass(frozen=True, slots=True)
class End:
    """How a program ended: its exit status, or the signal that ended it as a negative number; None where not known."""

    code: int | None

    def __str__(self) -> str:
        if self.code is None:
            return "ended"
        if self.code >= 0:
            return f"ended with exit status {self.code}"
        try:
            name = f" ({signal.Signals(-self.code).name})"
        except ValueError:
            name = ""
        return f"was ended by signal {-self.code}{name}"


class Kept:
    """Starts at once, in an empty folder of its own; its output goes to `log`, or to a file that goes with it.

    What stands in `secrets` is replaced in the log. OSError where the program cannot be started.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        secrets: Sequence[str] = (),
        log: Path | None = None,
        patience_s: float = PATIENCE_S,
    ) -> None:
        folder = self._folder = Path(tempfile.mkdtemp(prefix="servemark-"))
        self._logs = [log.absolute() if log else folder / "engine.log"]
        self._patience_s = patience_s
        self._end: End | None = None
        self._heard = b""
        self.pid: int | None = None
        self._keeper = subprocess.Popen(  # noqa: S603
            [sys.executable, "-I", "-S", keeper.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=dict(environment),
            start_new_session=True,  # Ctrl-C is for the client, which still wants to drain
        )
        try:
            self._order(
                command=list(command),
                folder=str(folder),
                log=str(self._logs[0]),
                secrets=list(secrets),
                patience_s=patience_s,
            )
            os.set_blocking(self._ears, False)
            while self.pid is None and self._end is None:
                self._hear(None)
        except BaseException:
            self.stop()
            raise

    @property
    def _ears(self) -> int:
        assert self._keeper.stdout is not None
        return self._keeper.stdout.fileno()

    def _order(self, **order: Any) -> None:
        assert self._keeper.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # no keeper any more: there is an end to hear of
            self._keeper.stdin.write(json.dumps(order).encode() + b"\n")
            self._keeper.stdin.flush()

    @property
    def end(self) -> End | None:
        """None while it runs."""
        self._hear(0)
        return self._end

    def wait(self, seconds: float) -> End | None:
        """Its end, if that comes within so long."""
        until_ns = now_ns() + round(seconds * SECOND)
        while self._end is None and (left_ns := until_ns - now_ns()) > 0:
            self._hear(left_ns / SECOND)
        return self._end

    async def ended(self) -> End:
        """Waits for its end, beside other things."""
        loop, news = asyncio.get_running_loop(), asyncio.Event()
        while (end := self.end) is None:
            news.clear()
            loop.add_reader(self._ears, news.set)
            try:
                await news.wait()
            finally:
                loop.remove_reader(self._ears)
        return end

    def _hear(self, seconds: float | None) -> bool:
        """Waits so long for news of it; whether there was any."""
        if self._end is not None or not select.select([self._ears], [], [], seconds)[0]:
            return False
        data = os.read(self._ears, 4096)
        *lines, self._heard = (self._heard + data).split(b"\n")
        for line in lines:
            self._take(json.loads(line))
        if not data and self._end is None:
            self._lost()
        return True

    def _take(self, told: Mapping[str, Any]) -> None:
        if "failed" in told:
            self._end = End(None)
            raise OSError(told["failed"])
        self.pid = told.get("pid", self.pid)
        if "exit" in told:
            self._end = End(told["exit"])

    def _lost(self) -> None:
        """Somebody ended the keeper; the program went with it, and what it started shares its group at least."""
        self._end = End(None)
        if self.pid is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)

    def log_to(self, path: Path) -> None:
        """From now on the log is there, beginning with what was said before it was first told so."""
        self._logs.append(path.absolute())
        self._order(log=str(path.absolute()))

    def tail(self, count: int = 12) -> list[str]:
        """The last lines of its log, safe to be shown."""
        for path in reversed(self._logs):
            with contextlib.suppress(OSError), path.open("rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL_BYTES))
                return _lines(file.read())[-count:]
        return []

    def hurry(self) -> None:
        """It is to end now, and not when it has finished what it does."""
        with contextlib.suppress(ProcessLookupError):
            self._keeper.terminate()

    def stop(self) -> None:
        """Asks it to end, makes it end, and waits until nothing of it is left. Twice does no harm."""
        assert self._keeper.stdin is not None
        assert self._keeper.stdout is not None
        with contextlib.suppress(OSError):
            self._keeper.stdin.close()
        try:
            self._keeper.wait(self._patience_s + keeper.GRACE_S + keeper.HOPELESS_S)
        except BaseException:
            self.hurry()
            self._keeper.wait(keeper.GRACE_S + keeper.HOPELESS_S)
            raise
        finally:
            while self._hear(0):
                pass
            self._keeper.stdout.close()
            shutil.rmtree(self._folder, ignore_errors=True)  # its keeper may have been killed


def _lines(data: bytes) -> list[str]:
    text = _ESCAPES.sub("", data.decode("utf-8", "replace"))
    lines = ("".join(c if c.isprintable() else " " for c in line).rstrip() for line in text.splitlines())
    return [line if len(line) <= _LONGEST_SHOWN else f"{line[: _LONGEST_SHOWN - 1]}…" for line in lines if line.strip()]
