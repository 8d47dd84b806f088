"""What people see while a server is started: a line that moves on a terminal, one now and then elsewhere. On stderr."""

from __future__ import annotations

import shutil
import sys
from typing import TextIO

from servemark.dashboards.words import clock_time

LINE_EVERY_S = 15.0


class StartView:
    """Called with the seconds so far and the last line of the server's log; `done` when it is ready or has failed."""

    def __init__(self, name: str, quiet: bool = False, stream: TextIO | None = None) -> None:
        self._name = name
        self._stream = sys.stderr if stream is None else stream
        self._quiet = quiet or self._stream is None  # a process may be started without a stderr
        self._moves = not self._quiet and self._stream.isatty()
        self._shown_s: float | None = None

    def __call__(self, elapsed_s: float, last_line: str) -> None:
        if self._quiet or (self._shown_s is not None and elapsed_s - self._shown_s < self._every_s):
            return
        self._shown_s = elapsed_s
        said = f"starting {self._name}  {clock_time(elapsed_s)}  {last_line}"
        if self._moves:
            width = shutil.get_terminal_size().columns - 1
            self._write(f"\r{said[:width]}\x1b[K")
        else:
            self._write(f"{said.rstrip()}\n")

    @property
    def _every_s(self) -> float:
        return 0.25 if self._moves else LINE_EVERY_S

    def done(self) -> None:
        """Leaves nothing of the moving line."""
        if self._moves and self._shown_s is not None:
            self._write("\r\x1b[K")

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except OSError:  # who watched has gone; the start goes on
            self._quiet, self._moves = True, False
