"""Connections opened before they are needed, kept alive, and replaced before the server closes them."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import deque
from collections.abc import Callable

from servemark.harness.clock import SECOND, now_ns
from servemark.harness.load.messages import Address, Plan
from servemark.harness.load.tls import client_context
from servemark.harness.load.wire import Connection, Endpoints, Exchange, WireClock, open_connection

_IDLE_LIMIT_NS = 4 * SECOND  # vLLM's front end (uvicorn) closes an idle connection after 5 s
_CONNECTING_AT_ONCE = 128  # a listen backlog is often no longer
_KEEP_EVERY_S = 0.02
_SPARE = 16  # kept idle while an open loop runs; at 50 opened a second, enough for a burst


class Pool:
    """Idle connections by address; the one used last is taken first, so the spare ones age and are replaced."""

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
        self._idle: dict[Address, deque[Connection]] = {address: deque() for address in plan.addresses}
        self._contexts = {
            address: client_context(plan.cacert, plan.insecure) if address.tls else None for address in plan.addresses
        }
        self._gate = asyncio.Semaphore(_CONNECTING_AT_ONCE)
        self._ahead = 0 if plan.fresh_connections else plan.connections_ahead
        self._spare = min(self._ahead, _SPARE)
        self._endpoints: dict[Address, Endpoints] = {}
        self.reconnects = 0

    async def open_ahead(self) -> int:
        """Opens the planned number on each address; returns how many stand."""
        await asyncio.gather(*(self._fill(address) for address in self._idle for _ in range(self._ahead)))
        return sum(map(len, self._idle.values()))

    async def _fill(self, address: Address) -> None:
        # The request that needs a connection will meet the same error, and record it.
        with contextlib.suppress(OSError, TimeoutError):
            self.give(await self.open(address))

    async def open(self, address: Address) -> Connection:
        """Raises OSError or TimeoutError."""
        async with self._gate:
            return await open_connection(
                address,
                await self._resolved(address),
                self._clock,
                context=self._contexts[address],
                timeout_s=self._plan.timeouts.connect_ns / SECOND,
                on_done=self._on_done,
                on_full=self._on_full,
                on_idle_lost=self._forget,
            )

    async def _resolved(self, address: Address) -> Endpoints:
        """The host's addresses, asked for once: a resolver's delay is no part of a measurement."""
        if address not in self._endpoints:
            loop = asyncio.get_running_loop()
            self._endpoints[address] = await loop.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
        return self._endpoints[address]

    def take(self, address: Address) -> Connection | None:
        idle = self._idle[address]
        return idle.pop() if idle else None

    def give(self, connection: Connection) -> None:
        """Takes a connection back; a used one of a run with fresh connections is closed."""
        if connection.closed:
            return
        if self._plan.fresh_connections and connection.requests:
            connection.close()
        else:
            self._idle[connection.address].append(connection)

    def _forget(self, connection: Connection) -> None:
        with contextlib.suppress(ValueError):
            self._idle[connection.address].remove(connection)

    async def keep(self) -> None:
        """Until cancelled: drops connections that are about to be closed for idling, and refills the spare ones.

        One at a time, so that a send that falls due meanwhile is not late.
        """
        while True:
            await asyncio.sleep(_KEEP_EVERY_S)
            old = now_ns() - _IDLE_LIMIT_NS
            for address, idle in self._idle.items():
                if idle and idle[0].idle_since_ns < old:
                    idle.popleft().close()
                if len(idle) < self._spare and self._plan.concurrency is None:
                    self.reconnects += 1
                    await self._fill(address)

    def close(self) -> None:
        for idle in self._idle.values():
            while idle:
                idle.pop().close()
