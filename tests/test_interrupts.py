"""What Ctrl-C, SIGTERM and a hang-up mean in each phase of a command."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from servemark.harness.interrupts import Interrupts

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture(autouse=True)
def as_from_a_terminal() -> Iterator[None]:
    """A suite that runs in the background of a script, or under nohup, has some of them ignored."""
    before = [signal.signal(number, signal.SIG_DFL) for number in NUMBERS]
    yield
    for number, handler in zip(NUMBERS, before, strict=True):
        signal.signal(number, handler)


def press(number: signal.Signals = signal.SIGINT) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", NUMBERS)
def test_before_the_load_each_ends_the_command(number: signal.Signals) -> None:
    with Interrupts(), pytest.raises(KeyboardInterrupt):
        press(number)


@pytest.mark.parametrize("number", NUMBERS)
def test_during_the_load_each_is_told_to_it(number: signal.Signals) -> None:
    heard: list[int] = []
    with Interrupts() as interrupts:
        interrupts.to(lambda: heard.append(1))
        press(number)
        press(number)
    assert heard == [1, 1]


def test_after_the_load_the_first_is_only_noted(capsys: pytest.CaptureFixture[str]) -> None:
    with Interrupts() as interrupts:
        interrupts.hold_once("the result is being written")
        press()
        assert capsys.readouterr().err == "bench: the result is being written\n"
        with pytest.raises(KeyboardInterrupt):
            press()


def test_before_a_further_phase_each_ends_the_command_again() -> None:
    with Interrupts() as interrupts:
        interrupts.hold_once("it is over")
        interrupts.to_end()
        with pytest.raises(KeyboardInterrupt):
            press()


def test_handlers_are_put_back() -> None:
    before = [signal.getsignal(number) for number in NUMBERS]
    with Interrupts():
        assert [signal.getsignal(number) for number in NUMBERS] != before
    assert [signal.getsignal(number) for number in NUMBERS] == before


def test_what_nohup_ignores_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interrupts():
            press(signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_another_thread_sets_none() -> None:
    failures: list[BaseException] = []

    def use() -> None:
        try:
            with Interrupts():
                pass
        except ValueError as error:
            failures.append(error)

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert failures == []
