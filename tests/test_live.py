"""The live view: figures as they come, seldom enough to cost nothing, and never on stdout."""

from __future__ import annotations

import io
import subprocess
import sys

import pytest

from servemark.dashboards.live import LiveView, Progress, line


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


MIDWAY = Progress(
    elapsed_s=12.4,
    total_s=60,
    sent=1234,
    in_flight=12,
    done=1220,
    failed=2,
    tokens_per_s=3240.4,
    ttft_ms=123.4,
    itl_ms=20.12,
    errors={"reset": 1, "http_status": 1},
)


def test_a_plain_line_says_all() -> None:
    assert line(MIDWAY) == (
        "measuring  0:12 of 1:00, 0:47 left  sent 1,234  in flight 12  done 1,220"
        "  FAILED 2 (1 http_status, 1 reset)  3,240 tok/s  TTFT p50 123 ms  ITL p50 20.1 ms"
    )


def test_a_line_before_anything_is_known() -> None:
    assert line(Progress(elapsed_s=0.2, phase="warmup")) == (
        "warm-up  0:00  sent 0  in flight 0  done 0  – tok/s  TTFT p50 –  ITL p50 –"
    )


@pytest.mark.parametrize(
    ("progress", "share", "left_s"),
    [
        (Progress(15, total_s=60), 0.25, 45),
        (Progress(75, total_s=60), 1.0, 0),
        (Progress(10, total_requests=100, done=15, failed=5), 0.2, 40),
        (Progress(10, total_requests=100), 0.0, None),
        (Progress(10), None, None),
        # Whichever comes first ends the run.
        (Progress(15, total_s=60, total_requests=100, done=50), 0.5, 45),
    ],
)
def test_how_far_and_how_long(progress: Progress, share: float | None, left_s: float | None) -> None:
    assert progress.share == share
    assert progress.left_s == left_s


def test_plain_lines_come_every_five_seconds_and_at_the_end() -> None:
    out, clock = io.StringIO(), Clock()
    with LiveView(stream=out, clock=clock) as view:
        for tick in range(121):
            clock.now = tick / 10
            view.update(Progress(elapsed_s=clock.now))
    assert [text.split()[1] for text in out.getvalue().splitlines()] == ["0:00", "0:05", "0:10", "0:12"]


def test_the_last_line_is_not_repeated() -> None:
    out = io.StringIO()
    with LiveView(stream=out, clock=Clock(), every_s=1) as view:
        view.update(MIDWAY)
    assert out.getvalue() == line(MIDWAY) + "\n"


def test_quiet_shows_nothing() -> None:
    for out in (io.StringIO(), Terminal()):
        with LiveView(stream=out, quiet=True) as view:
            view.update(MIDWAY)
        assert out.getvalue() == ""


def test_a_terminal_shows_the_figures_at_most_four_times_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    out, clock = Terminal(), Clock()
    with LiveView("chat on vllm", stream=out, clock=clock) as view:
        view.update(MIDWAY)
        shown = out.getvalue()
        for tick in range(1, 25):
            clock.now = tick / 100
            view.update(MIDWAY)
        assert out.getvalue() == shown
        clock.now = 0.25
        view.update(MIDWAY)
        assert len(out.getvalue()) > len(shown)
    for word in ("chat on vllm", "0:47 left", "1,234", "3,240", "123 ms", "20.1 ms", "2 failed: 1 http_status"):
        assert word in shown


def test_an_error_kind_with_markup_is_shown_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    out = Terminal()
    with LiveView("[bold]x[/nothing]", stream=out, clock=Clock()) as view:
        view.update(Progress(1, failed=1, errors={"[/red]": 1}))
    assert "[bold]x[/nothing]" in out.getvalue()
    assert "1 [/red]" in out.getvalue()


def test_an_exception_in_the_run_comes_through() -> None:
    out = io.StringIO()

    def interrupted() -> None:
        with LiveView(stream=out, clock=Clock()) as view:
            view.update(MIDWAY)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert "sent 1,234" in out.getvalue()


def test_rich_is_imported_only_for_a_terminal_and_stdout_stays_clean() -> None:
    code = (
        "import sys; from servemark.dashboards.live import LiveView, Progress\n"
        "with LiveView() as view: view.update(Progress(1.0))\n"
        "assert 'rich' not in sys.modules"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (0, ""), ran.stderr
    assert ran.stderr.startswith("measuring  0:01")


def test_a_terminal_that_has_gone_costs_the_run_nothing() -> None:
    for stream in (Gone(), HungUp()):
        clock = Clock()
        with LiveView(stream=stream, clock=clock) as view:
            for _ in range(3):
                view.update(MIDWAY)
                clock.now += 60
                stream.gone = True


class Gone(io.StringIO):
    gone = False

    def write(self, text: str) -> int:
        raise OSError(5, "Input/output error")


class HungUp(Terminal):
    """Rich writes and flushes; a terminal that has gone takes neither."""

    gone = False

    def flush(self) -> None:
        if self.gone:
            raise OSError(5, "Input/output error")


def test_without_a_stderr_nothing_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    with LiveView() as view:
        view.update(MIDWAY)
