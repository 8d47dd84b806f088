"""What the coordinating process and a worker process tell each other, and how it is framed on their socket pair.

    coordinator -> worker    Plan, Job..., SessionOver..., EndOfJobs, Begin, Stop
    worker -> coordinator    Ready, Taken..., Started, Finished..., Status..., Report

Each message is one MessagePack map with its type's name, after its length in four bytes. A plan holds no credentials:
headers travel only inside the encoded requests.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final, Literal

import msgspec

from servemark.harness.types import Endpoint, Framing, Record, StopReason, WorkerReport

_LENGTH_BYTES: Final = 4


class Address(msgspec.Struct, frozen=True):
    """A base URL taken apart; `url` is as the user wrote it and stands in records."""

    url: str
    host: str
    port: int
    tls: bool


class Timeouts(msgspec.Struct, frozen=True):
    """Nanoseconds each. First event counts any event, gap any bytes."""

    connect_ns: int = 10_000_000_000
    first_event_ns: int = 120_000_000_000
    gap_ns: int = 60_000_000_000
    total_ns: int = 600_000_000_000


class Plan(msgspec.Struct, frozen=True, tag=True):
    """All that a worker knows of the run; requests follow as jobs."""

    worker: int
    addresses: tuple[Address, ...]
    adapter: str
    framing: Framing
    endpoint: Endpoint
    timeouts: Timeouts
    balance: str = "round-robin"
    """Who of several addresses gets a request."""
    concurrency: int | None = None
    """Closed loop: this many slots. None: open loop, jobs carry their offsets."""
    max_in_flight: int | None = None
    """Open loop: a cap; waiting for a slot counts from the intended time."""
    ramp_up_ns: int = 0
    """Closed loop: the slots' first requests are spread over this time."""
    requests_per_minute: int | None = None
    """Closed loop: at most so many, over all addresses."""
    connections_ahead: int = 8
    """On each address."""
    fresh_connections: bool = False
    give_up_unless: Literal["first_token", "end"] = "first_token"
    """What a client waits for that would give up."""
    warmup_ns: int = 0
    warmup_requests: int = 0
    duration_ns: int | None = None
    """Of the measured part; a closed loop stops issuing after it."""
    measured_requests: int | None = None
    drain_ns: int = 30_000_000_000
    cacert: str | None = None
    insecure: bool = False


class Job(msgspec.Struct, frozen=True, tag=True):
    """One encoded request; `offset_ns` None in a closed loop, and in a later turn of a session, which has `due_ns`.

    `payload` is the whole HTTP message. Where there are several addresses it is the body, and `heads` holds what
    comes before it for each of them: the worker chooses when it sends.
    """

    index: int
    offset_ns: int | None
    payload: bytes
    heads: tuple[bytes, ...] = ()
    class_: str = "default"
    session_id: str | None = None
    turn: int = 0
    asked_prompt_tokens: int | None = None
    asked_output_tokens: int | None = None
    due_ns: int | None = None
    """Of a later turn: when it is intended, on the monotonic clock."""
    turns: int = 1
    """Of the session, if every one is answered."""
    more: bool = False
    """Another turn follows the answer; the coordinator sends it, or says that the session is over."""
    think_ns: int = 0
    """Closed loop: the user's pause before it, unless it is the first that the user sends."""
    give_up_ns: int | None = None
    """The client hangs up so long after the intended time, unless what it waits for has come."""

    def message(self, place: int) -> bytes:
        """The whole HTTP message for the address at this place."""
        return self.heads[place] + self.payload if self.heads else self.payload

    @property
    def size(self) -> int:
        return len(self.payload) + sum(map(len, self.heads))


class SessionOver(msgspec.Struct, frozen=True, tag=True):
    """No turn follows the last answer of this session."""

    session_id: str


class EndOfJobs(msgspec.Struct, frozen=True, tag=True):
    pass


class Begin(msgspec.Struct, frozen=True, tag=True):
    pass


class Stop(msgspec.Struct, frozen=True, tag=True):
    """Send nothing more, drain for at most this long, report; the first reason stands."""

    drain_ns: int
    reason: StopReason = "interrupted"


class Ready(msgspec.Struct, frozen=True, tag=True):
    connections: int
    stamp: str


class Taken(msgspec.Struct, frozen=True, tag=True):
    """How many jobs have been taken from the look-ahead so far."""

    jobs: int


class Started(msgspec.Struct, frozen=True, tag=True):
    started_ns: int
    started_wall_ns: int


class Status(msgspec.Struct, frozen=True, tag=True):
    """A few times a second, for the live view."""

    at_ns: int
    sent: int
    in_flight: int
    finished: int
    reads: int


class Finished(msgspec.Struct, frozen=True, tag=True):
    """`answer` is the text of a turn that another one follows."""

    record: Record
    answer: str | None = None


class Report(msgspec.Struct, frozen=True, tag=True):
    report: WorkerReport


ToWorker = Plan | Job | SessionOver | EndOfJobs | Begin | Stop
ToCoordinator = Ready | Taken | Started | Status | Finished | Report

_encoder = msgspec.msgpack.Encoder()
decode_to_worker = msgspec.msgpack.Decoder(ToWorker).decode
decode_to_coordinator = msgspec.msgpack.Decoder(ToCoordinator).decode


def frame(message: Any) -> bytes:
    body = _encoder.encode(message)
    return len(body).to_bytes(_LENGTH_BYTES, "big") + body


async def read_frame(stream: asyncio.StreamReader) -> bytes | None:
    """The next message's body; None when the other side is gone."""
    try:
        length = int.from_bytes(await stream.readexactly(_LENGTH_BYTES), "big")
        return await stream.readexactly(length)
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
