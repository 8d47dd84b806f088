"""The simulated server: one dialect's routes over the simulation, in one asyncio process."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import Final
from zlib import crc32

from servemark.adapters.sim.asking import Refusal
from servemark.adapters.sim.connection import LAST_CHUNK, Connection, Exchange, stream_head
from servemark.adapters.sim.dialect import Direct, Generated, Route, respond_json
from servemark.adapters.sim.dialects import dialect
from servemark.adapters.sim.engine import EngineRequest
from servemark.adapters.sim.faults import AT_ONCE
from servemark.adapters.sim.generation import Generation
from servemark.adapters.sim.options import SimOptions
from servemark.adapters.sim.simulation import Simulation
from servemark.harness.clock import SECOND, now_ns

FACTS: Final = "/sim/facts"
"""In every dialect: what is simulated."""


class SimServer:
    """`handle` answers one exchange, at once or token by token."""

    def __init__(self, options: SimOptions) -> None:
        self.options = options
        self.sim = Simulation(options)
        self.dialect = dialect(options.dialect)(self.sim)
        self.sim.after_step = self.dialect.after_step
        self.connections: set[Connection] = set()
        self._own: Mapping[str, Route] = {FACTS: Direct(self._tell_facts)}
        self._asked = 0

    def connection(self) -> Connection:
        return Connection(self.handle, self.connections)

    def handle(self, exchange: Exchange) -> None:
        route = self._own.get(exchange.path) or self.dialect.route(exchange.path)
        if route is None:
            exchange.respond(404, self.dialect.not_found)
        elif exchange.method not in route.methods:
            allow = ("allow", ", ".join(route.methods))
            exchange.respond(405, self.dialect.not_allowed, headers=(allow,))
        else:
            try:
                self._answer(route, exchange)
            except Refusal as refusal:
                _refuse(exchange, refusal)

    async def close_idle_connections(self) -> None:
        """Until cancelled: closes those that have been idle for `keep_alive_s`, as the real servers do."""
        limit_ns = round(self.options.keep_alive_s * SECOND)
        while True:
            await asyncio.sleep(min(1.0, self.options.keep_alive_s / 4))
            oldest_ns = now_ns() - limit_ns
            for connection in list(self.connections):
                if connection.idle_since_ns is not None and connection.idle_since_ns < oldest_ns:
                    connection.close()

    def _answer(self, route: Direct | Generated, exchange: Exchange) -> None:
        if isinstance(route, Direct):
            route.answer(exchange)
        else:
            self._generate(route, exchange)

    def _tell_facts(self, exchange: Exchange) -> None:
        respond_json(exchange, self.sim.hardware.facts)

    def _generate(self, route: Generated, exchange: Exchange) -> None:
        ordinal, self._asked = self._asked, self._asked + 1
        fault = self.sim.faults.draw(ordinal)
        if fault is not None and fault.kind in AT_ONCE:
            self._fail_at_once(fault.kind, exchange)
            return
        asked = route.read(exchange.body, ordinal)
        start, ends_at = self.sim.answers.plan(asked.prompt, asked.min_tokens, asked.seed)
        request = EngineRequest(
            prompt=asked.prompt,
            max_tokens=asked.max_tokens,
            arrival_ns=exchange.arrived_ns,
            ends_at=None if asked.ignore_eos else ends_at,
            answer_start=start,
            salt=crc32(asked.cache_salt.encode()),
        )
        give_up = partial(self.sim.abort, request)
        exchange.on_lost = give_up
        stall_s = self.options.stall_s
        answer = Generation(asked.writer, exchange, self.sim.answers, fault, stall_s, give_up, self.dialect.failure)
        request.tag = answer.on_token
        answer.watch_silence(request)
        self.sim.driver.submit(request)

    def _fail_at_once(self, kind: str, exchange: Exchange) -> None:
        if kind == "reset":
            exchange.cut(reset=True)
            return
        status = 503 if kind == "http503" else 500
        exchange.respond(status, self.dialect.failure(status))


def _refuse(exchange: Exchange, refusal: Refusal) -> None:
    if not refusal.stream:
        exchange.respond(refusal.status, refusal.body, refusal.content_type, refusal.headers)
        return
    head = stream_head(refusal.content_type, *refusal.headers, status=refusal.status)
    exchange.write(head + refusal.body + LAST_CHUNK)
    exchange.end()
