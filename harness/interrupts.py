"""Ctrl-C, SIGTERM and a hang-up, from a command's first moment to its last. What they mean depends on the phase."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any


class Interrupts:
    """A context manager. Until told otherwise, a signal ends the command as Ctrl-C ends any (KeyboardInterrupt).

    Handlers of Python and not of the event loop, so that no moment between the phases is without one.
    """

    def __init__(self) -> None:
        self._receive: Callable[[], None] = _stop_now
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():  # no other thread may set handlers
            for number in (signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):
                if signal.getsignal(number) is not signal.SIG_IGN:  # nohup, or a background job of a script
                    self._before.setdefault(number, signal.signal(number, self._handle))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._receive()

    def to(self, receive: Callable[[], None]) -> None:
        """From now on a signal calls this, in the main thread and between any two steps of it."""
        self._receive = receive

    def to_end(self) -> None:
        """From now on a signal ends the command again."""
        self._receive = _stop_now

    def hold_once(self, note: str) -> None:
        """From now on the first signal only prints the note: it may have been meant for the phase before."""

        def first() -> None:
            self._receive = _stop_now
            if sys.stderr is not None:
                sys.stderr.write(f"bench: {note}\n")

        self._receive = first


def _stop_now() -> None:
    raise KeyboardInterrupt
