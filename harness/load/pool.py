"""Connections opened before they are needed, kept alive, and replaced before the server closes them."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import deque
from collections.abc import Callable

from servemark.harness.clock import SECOND, now_ns
from servemark.harness.load.limits import SPARE
from servemark.harness.load.messages import Plan
from servemark.harness.load.tls import client_context
from servemark.harness.load.wire import Connection, Endpoints, Exchange, WireClock, open_connection

_IDLE_LIMIT_NS = 4 * SECOND  # vLLM's front end (uvicorn) closes an idle connection after 5 s
_CONNECTING_AT_ONCE = 128  # a listen backlog is often no longer
_KEEP_EVERY_S = 0.02
_REFUSED_PAUSE_S = 0.5
# A server that closes so many, and this share, of the connections that are used again says keep-alive and does not.
_BROKEN, _BROKEN_SHARE = 3, 0.1


class Pool:
    """Idle connections by the place of their address in the plan.

    The one used last is taken first, so the spare ones age and are replaced.
    """

    def __init__(
        self,
        plan: Plan,
        clock: WireClock,
        on_done: Callable[[Connection, Exchange], None],
        on_full: Callable[[Exchange], None],
    ) -> None:
        self._plan = plan
        self._clock = clock
        self._on_done = on_done
        self._on_full = on_full
        self._idle: list[deque[Connection]] = [deque() for _ in plan.addresses]
        self._contexts = [
            client_context(plan.cacert, plan.insecure) if address.tls else None for address in plan.addresses
        ]
        self._gate = asyncio.Semaphore(_CONNECTING_AT_ONCE)
        self._ahead = 0 if plan.fresh_connections else plan.connections_ahead
        self._used_again = [0] * len(plan.addresses)
        self._broken = [0] * len(plan.addresses)
        # A closed loop at one address always has a connection for each of its slots, while their users think too.
        self._replaces = plan.concurrency is not None and len(plan.addresses) == 1
        self._spare = [0 if self._replaces else min(self._ahead, SPARE) for _ in plan.addresses]
        self._endpoints: dict[int, Endpoints] = {}
        self.reconnects = 0

    async def open_ahead(self) -> int:
        """Opens the planned number on each address; returns how many stand."""
        await asyncio.gather(*(self._fill(place) for place in range(len(self._idle)) for _ in range(self._ahead)))
        return sum(map(len, self._idle))

    async def _fill(self, place: int) -> bool:
        # The request that needs a connection will meet the same error, and record it.
        with contextlib.suppress(OSError, TimeoutError):
            self.give(await self.open(place))
            return True
        return False

    async def open(self, place: int) -> Connection:
        """Raises OSError or TimeoutError."""
        async with self._gate:
            return await open_connection(
                place,
                self._plan.addresses[place],
                await self._resolved(place),
                self._clock,
                context=self._contexts[place],
                timeout_s=self._plan.timeouts.connect_ns / SECOND,
                on_done=self._on_done,
                on_full=self._on_full,
                on_idle_lost=self._forget,
            )

    async def _resolved(self, place: int) -> Endpoints:
        """The host's addresses, asked for once: a resolver's delay is no part of a measurement."""
        if place not in self._endpoints:
            loop, address = asyncio.get_running_loop(), self._plan.addresses[place]
            self._endpoints[place] = await loop.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
        return self._endpoints[place]

    def take(self, place: int) -> Connection | None:
        idle = self._idle[place]
        if not idle:
            return None
        connection = idle.pop()
        self._used_again[place] += connection.requests > 0
        return connection

    def broke(self, place: int) -> None:
        """A connection that was used again had been closed by the server."""
        self._broken[place] += 1
        if self._closes(place):
            self._spare[place] = min(self._ahead, SPARE)

    def _closes(self, place: int) -> bool:
        """Whether the server ends connections after one answer, whatever it says: none is then used again."""
        return self._broken[place] >= max(_BROKEN, _BROKEN_SHARE * self._used_again[place])

    def give(self, connection: Connection) -> None:
        """Takes a connection back; a used one that is not to be used again is closed."""
        if connection.closed:
            return
        if connection.requests and (self._plan.fresh_connections or self._closes(connection.place)):
            connection.close()
        else:
            self._idle[connection.place].append(connection)

    def _forget(self, connection: Connection) -> None:
        with contextlib.suppress(ValueError):
            self._idle[connection.place].remove(connection)

    async def keep(self) -> None:
        """Until cancelled: drops connections that are about to be closed for idling, and refills the spare ones."""
        await asyncio.gather(*(self._keep(place) for place in range(len(self._idle))))

    async def _keep(self, place: int) -> None:
        """One at a time, so that a send that falls due meanwhile is not late."""
        idle = self._idle[place]
        while True:
            await asyncio.sleep(_KEEP_EVERY_S)
            aged = bool(idle) and idle[0].idle_since_ns < now_ns() - _IDLE_LIMIT_NS
            if aged:
                idle.popleft().close()
            if len(idle) >= self._spare[place] and not (aged and self._replaces):
                continue
            if await self._fill(place):
                self.reconnects += 1
            else:
                await asyncio.sleep(_REFUSED_PAUSE_S)

    def close(self) -> None:
        for idle in self._idle:
            while idle:
                idle.pop().close()
