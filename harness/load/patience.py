"""Clients that give up: each hangs up at its own moment, unless what it waits for has come by then.

Only requests whose clients may do so cost anything here: one timer each.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, MutableMapping

from servemark.harness.clock import MS, SECOND, now_ns
from servemark.harness.load.messages import Plan
from servemark.harness.load.reading import Reader
from servemark.harness.load.wire import Connection, Exchange

Flying = MutableMapping[Exchange, Connection | None]


class Patience:
    """Of the clients of one run. `leave` is called with whoever gives up before its request was sent."""

    def __init__(self, plan: Plan, reader: Reader, flying: Flying, leave: Callable[[Exchange], None]) -> None:
        self._for_token = plan.give_up_unless == "first_token"
        self._reader = reader
        self._flying = flying
        self._leave = leave
        self._moments: dict[Exchange, asyncio.TimerHandle] = {}

    def begins(self, exchange: Exchange) -> bool:
        """Sets the moment of a client that gives up; False where it lies behind, and nothing is to be sent."""
        due_ns = _due_ns(exchange)
        if due_ns is None:
            return True
        left_ns = due_ns - now_ns()
        if left_ns > 0:
            # The event loop's timers tick in milliseconds: after the moment rather than before it.
            delay_s = (left_ns // MS + 1) * MS / SECOND
            self._moments[exchange] = asyncio.get_running_loop().call_later(delay_s, self._hang_up, exchange)
            return True
        self._flying[exchange] = None
        asyncio.get_running_loop().call_soon(self._hang_up, exchange)  # whoever is next in a queue may have left too
        return False

    def ended(self, exchange: Exchange) -> None:
        """It is over before its moment, until which a timer would keep it and its answer in memory."""
        moment = self._moments.pop(exchange, None)
        if moment is not None:
            moment.cancel()

    def _hang_up(self, exchange: Exchange) -> None:
        self._moments.pop(exchange, None)
        if exchange not in self._flying:
            return  # the run's end was first
        connection = self._flying[exchange]
        if connection is None:
            gone_unsent(exchange)
            self._leave(exchange)
            return
        come = self._reader.so_far(exchange)
        if self._for_token and come.first_token_ns is not None:
            return
        waited = f"hung up after {(now_ns() - exchange.intended_ns) / SECOND:.3f} s"
        connection.abort("gave_up", f"{waited}; {_come(exchange, len(come.chunk_ns))}")


def _come(exchange: Exchange, chunks: int) -> str:
    if not chunks:
        return "no token had come" if exchange.first_byte_ns else "no byte had come"
    return f"{chunks} chunk{'s' * (chunks > 1)} with tokens had come"


def gone_unsent(exchange: Exchange) -> bool:
    """Whether the client of a request that was never sent has given up by now, which then is how it ended."""
    due_ns = _due_ns(exchange)
    if due_ns is None or now_ns() < due_ns:
        return False
    waited_s = (due_ns - exchange.intended_ns) / SECOND
    exchange.error, exchange.error_detail = "gave_up", f"hung up after {waited_s:.3f} s; the request was not sent yet"
    exchange.done_ns = due_ns
    return True


def _due_ns(exchange: Exchange) -> int | None:
    patience_ns = exchange.job.give_up_ns
    return None if patience_ns is None else exchange.intended_ns + patience_ns
