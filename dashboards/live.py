"""What people see while a run goes on: a live view on a terminal, plain lines elsewhere. Writes to stderr."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, TextIO

from servemark.dashboards.words import clock_time, figure, milliseconds

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

REFRESH_S = 0.25
LINE_EVERY_S = 5.0
PHASES = {"warmup": "warm-up", "measured": "measuring", "cooldown": "cool-down"}


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is. `total_s` or `total_requests` says where it ends; None where nobody knows yet."""

    elapsed_s: float
    total_s: float | None = None
    total_requests: int | None = None
    sent: int = 0
    in_flight: int = 0
    done: int = 0
    failed: int = 0
    gave_up: int = 0
    tokens_per_s: float | None = None
    ttft_ms: float | None = None
    """Median so far."""
    itl_ms: float | None = None
    """Median so far."""
    phase: str = "measured"
    errors: Mapping[str, int] = field(default_factory=dict)

    @property
    def ended(self) -> int:
        """Requests, in whatever way."""
        return self.done + self.failed + self.gave_up

    @property
    def share(self) -> float | None:
        """How much of the run is over, 0 to 1."""
        shares = []
        if self.total_s:
            shares.append(self.elapsed_s / self.total_s)
        if self.total_requests:
            shares.append(self.ended / self.total_requests)
        return min(1.0, max(0.0, *shares)) if shares else None

    @property
    def left_s(self) -> float | None:
        """Time left: certain where the run ends by time, else judged by the pace so far."""
        if self.total_s:
            return max(0.0, self.total_s - self.elapsed_s)
        if not self.share:
            return None
        return self.elapsed_s / self.share - self.elapsed_s


def line(progress: Progress) -> str:
    """One plain line, for a log."""
    parts = [_where(progress), f"sent {progress.sent:,}", f"in flight {progress.in_flight:,}"]
    parts.append(f"done {progress.done:,}")
    if progress.gave_up:
        parts.append(f"gave up {progress.gave_up:,}")
    if progress.failed:
        parts.append(f"FAILED {progress.failed:,} ({_errors(progress.errors)})")
    parts.append(f"{figure(progress.tokens_per_s)} tok/s")
    parts += [f"TTFT p50 {milliseconds(progress.ttft_ms)}", f"ITL p50 {milliseconds(progress.itl_ms)}"]
    return "  ".join(parts)


class LiveView:
    """Shows each `update`, at most four times a second; a context manager. `quiet` shows nothing.

    On a terminal a progress bar and the figures so far; else a plain line each `every_s` seconds.
    """

    def __init__(
        self,
        title: str = "",
        quiet: bool = False,
        every_s: float = LINE_EVERY_S,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._title = title
        self._every_s = every_s
        self._stream = sys.stderr if stream is None else stream
        self._quiet = quiet or self._stream is None  # a process may be started without a stderr
        self._clock = clock
        self._live: Live | None = None
        self._shown_s: float | None = None
        self._last: Progress | None = None
        self._last_is_shown = False

    @property
    def interactive(self) -> bool:
        return not self._quiet and self._stream.isatty()

    def __enter__(self) -> LiveView:
        if self.interactive:
            from rich.console import Console
            from rich.live import Live

            # No refresh thread of its own: it would take the interpreter from the run at moments of its choosing.
            console = Console(file=self._stream, highlight=False)
            self._live = Live(console=console, auto_refresh=False, transient=True)
            self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._last is not None and not self._last_is_shown:
            self._show(self._last)
        if self._live is not None:
            with contextlib.suppress(OSError):
                self._live.__exit__(kind, error, trace)
            self._live = None

    def update(self, progress: Progress) -> None:
        """Cheap when it is called often: most calls only remember."""
        if self._quiet:
            return
        self._last, self._last_is_shown = progress, False
        now = self._clock()
        due_s = REFRESH_S if self._live is not None else self._every_s
        if self._shown_s is None or now - self._shown_s >= due_s:
            self._shown_s = now
            self._show(progress)

    def _show(self, progress: Progress) -> None:
        self._last_is_shown = True
        try:
            self._draw(progress)
        except OSError:  # who watched has gone, or the terminal has; the run goes on
            self._quiet = True

    def _draw(self, progress: Progress) -> None:
        if self._live is not None:
            self._live.update(_picture(self._title, progress), refresh=True)
        else:
            self._stream.write(line(progress) + "\n")
            self._stream.flush()


def _picture(title: str, progress: Progress) -> RenderableType:
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    bar = Table.grid(padding=(0, 2), expand=True)
    bar.add_column(ratio=1)
    bar.add_column(justify="right", no_wrap=True)
    bar.add_row(ProgressBar(total=1.0, completed=progress.share or 0.0), Text(_where(progress)))
    figures = Table.grid(padding=(0, 3))
    labels, values = zip(*_figures(progress), strict=True)
    figures.add_row(*(Text(label, style="dim") for label in labels))
    figures.add_row(*(Text(value, style="bold") for value in values))
    rows: list[RenderableType] = [Text(title, style="bold")] if title else []
    rows += [bar, figures]
    if progress.failed:
        rows.append(Text(f"{progress.failed:,} failed: {_errors(progress.errors)}", style="red"))
    return Group(*rows)


def _figures(progress: Progress) -> list[tuple[str, str]]:
    return [
        ("sent", f"{progress.sent:,}"),
        ("in flight", f"{progress.in_flight:,}"),
        ("done", f"{progress.done:,}"),
        *([("gave up", f"{progress.gave_up:,}")] if progress.gave_up else []),
        ("tok/s", figure(progress.tokens_per_s)),
        ("TTFT p50", milliseconds(progress.ttft_ms)),
        ("ITL p50", milliseconds(progress.itl_ms)),
    ]


def _where(progress: Progress) -> str:
    left = progress.left_s
    tail = "" if left is None else f", {clock_time(left)} left"
    return f"{PHASES.get(progress.phase, progress.phase)}  {_elapsed(progress)}{tail}"


def _elapsed(progress: Progress) -> str:
    if progress.total_s:
        return f"{clock_time(progress.elapsed_s)} of {clock_time(progress.total_s)}"
    if progress.total_requests:
        return f"{clock_time(progress.elapsed_s)}, {progress.ended:,} of {progress.total_requests:,} requests"
    return clock_time(progress.elapsed_s)


def _errors(errors: Mapping[str, int]) -> str:
    ranked = sorted(errors.items(), key=lambda item: (-item[1], item[0]))
    shown = ", ".join(f"{count:,} {kind}" for kind, count in ranked[:4])
    return f"{shown}, ..." if len(ranked) > 4 else shown
