"""What a dialect is: the routes of one server's API, over the simulation that all dialects share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import msgspec

from servemark.adapters.sim.asking import Asked
from servemark.adapters.sim.connection import Exchange
from servemark.adapters.sim.engine import EngineRequest
from servemark.adapters.sim.simulation import Simulation

VERSION: Final = "0.1.0-servemark-sim"
"""What every dialect gives as the server's version: a client can tell from it that nothing real was measured."""

PROMETHEUS: Final = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Direct:
    """A route that is answered at once."""

    answer: Callable[[Exchange], None]
    methods: tuple[str, ...] = ("GET",)


@dataclass(frozen=True, slots=True)
class Generated:
    """A route that the engine answers: the body and the request's number -> what is asked. Raises Refusal."""

    read: Callable[[bytes, int], Asked]
    methods: tuple[str, ...] = ("POST",)


Route = Direct | Generated


class Dialect:
    """Each module (or package) in dialects/ has one as DIALECT; `--dialect` finds it by the module's name."""

    not_found = b'{"detail":"Not Found"}'
    not_allowed = b'{"detail":"Method Not Allowed"}'

    def __init__(self, sim: Simulation) -> None:
        self.sim = sim
        self.routes: Mapping[str, Route] = {}

    def route(self, path: str) -> Route | None:
        return self.routes.get(path)

    def failure(self, status: int) -> bytes:
        """The body of an error response (500, 503) to a request that was well formed."""
        raise NotImplementedError

    after_step: Callable[[list[EngineRequest]], None] | None = None
    """Called when a step of the engine has ended, with the requests that got a token."""

    def id_of(self, prefix: str, ordinal: int) -> str:
        """A name for the answer to the request with this number, the same in each run with the same seed."""
        return f"{prefix}{self.sim.options.seed:x}-{ordinal:08x}"


def respond_json(exchange: Exchange, value: object, status: int = 200) -> None:
    exchange.respond(status, msgspec.json.encode(value))


def respond_empty(exchange: Exchange) -> None:
    exchange.respond(200, b"")
