"""One engine measured through each adapter, in each server's words, gives the same TTFT, ITL and token counts.

The engine is the simulated one, whose every token and time is known: what adapters report is held against it.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

import pytest

from servemark.adapters.sim.dialects import names
from servemark.adapters.sim.engine import EngineRequest
from servemark.harness.clock import MS, SECOND
from servemark.harness.load.jobs import JobQueue
from servemark.harness.load.messages import Address, Job, Plan, Timeouts
from servemark.harness.load.runner import Runner
from servemark.harness.server.discovery import load_adapter
from servemark.harness.types import Endpoint, Options, Record, Request
from tests.simulated import MODEL, Simulated, read, simulated

ROUTES: tuple[tuple[str, Endpoint], ...] = tuple(
    (dialect, endpoint) for dialect in names() for endpoint in load_adapter(dialect).endpoints
)
PROMPTS = tuple(f"Request {number}: " + "what is it that the old man said " * 20 for number in range(6))
LENGTH = 12


# -- counts: exact, and no clock in them


def forces(dialect: str) -> bool:
    return dialect != "tgi"


@pytest.mark.parametrize(("dialect", "endpoint"), ROUTES)
async def test_each_adapter_counts_what_the_engine_made(dialect: str, endpoint: Endpoint) -> None:
    async with simulated(dialect=dialect, eos_mean_tokens=10) as one:
        for prompt in PROMPTS:
            reading = await read(one, dialect, endpoint, prompt, LENGTH)
            engine = one.engine[-1]
            assert reading.outcome.error is None
            assert reading.outcome.usage.output_tokens == engine.produced
            assert reading.outcome.usage.prompt_tokens == len(engine.prompt)
            assert reading.tokens == [1] * engine.produced
    lengths = [engine.produced for engine in one.engine]
    assert lengths == ([LENGTH] * 6 if forces(dialect) else [min(LENGTH, engine.ends_at or 0) for engine in one.engine])


async def engine_requests(dialect: str, endpoint: Endpoint, forced: bool) -> list[EngineRequest]:
    async with simulated(dialect=dialect, eos_mean_tokens=10) as one:
        for prompt in PROMPTS:
            await read(one, dialect, endpoint, prompt, LENGTH, forced)
    return one.engine


@pytest.mark.parametrize("route", ["chat", "text"])
async def test_every_dialect_gives_the_engine_the_same_work(route: str) -> None:
    """Same prompts, token for token, and answers that begin and end alike, whichever server's words they are in."""
    asked = [(dialect, of) for dialect, of in ROUTES if (of == "chat") == (route == "chat")]
    seen = [await engine_requests(dialect, endpoint, forced=False) for dialect, endpoint in asked]
    assert len(seen) > 4
    work = [[(one.prompt, one.answer_start, one.ends_at, one.produced) for one in requests] for requests in seen]
    assert all(one == work[0] for one in work)
    assert len({produced for _, _, _, produced in work[0]}) > 1  # some ended by EOS, at different lengths


@pytest.mark.parametrize(("dialect", "endpoint"), ROUTES)
async def test_answers_that_end_by_themselves_are_counted_to_the_last_token(dialect: str, endpoint: Endpoint) -> None:
    """EOS is a token without text: for some servers without a chunk, but never without a count."""
    async with simulated(dialect=dialect, eos_mean_tokens=5) as one:
        for prompt in PROMPTS:
            reading = await read(one, dialect, endpoint, prompt, 100, forced=False)
            assert one.engine[-1].finish_reason == "stop"
            assert reading.outcome.error is None
            assert reading.outcome.usage.output_tokens == one.engine[-1].produced


async def test_the_adapter_of_any_openai_endpoint_counts_the_same() -> None:
    async with simulated() as one:
        reading = await read(one, "vllm", "chat", PROMPTS[0], LENGTH, target="openai")
    assert reading.outcome.error is None
    assert reading.outcome.usage.output_tokens == one.engine[0].produced
    assert reading.outcome.usage.prompt_tokens == len(one.engine[0].prompt)
    assert sum(delta.carries for delta in reading.deltas) == one.engine[0].spoken


# -- times

SPEED = 0.02
"""Steps of some 50 ms: what a busy machine adds to a time is small beside them."""
OFFSETS_NS = tuple(round(at * SECOND) for at in (0, 1.0, 1.02, 1.15, 1.3, 1.32))
STEPS = 8


@dataclass(frozen=True)
class Measured:
    records: list[Record]
    engine: list[EngineRequest]
    modelled_first_ns: int
    """What the first prompt, which is alone, takes by the model."""


def jobs(dialect: str, port: int) -> list[Job]:
    adapter = load_adapter(dialect)
    endpoint = adapter.endpoints[0]
    options = Options(model="ensemble" if dialect == "trtllm-triton" else MODEL, endpoint=endpoint)
    made = []
    for index, offset_ns in enumerate(OFFSETS_NS):
        http = adapter.encode(Request(index, PROMPTS[index], None, STEPS), options)
        head = f"POST {http.path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: {len(http.body)}\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in http.headers)
        made.append(Job(index, offset_ns, f"{head}\r\n".encode() + http.body, asked_output_tokens=STEPS))
    return made


async def measure(dialect: str) -> Measured:
    async with simulated(dialect=dialect, speed=SPEED, eos_mean_tokens=1e6) as one:
        records = await drive(one, dialect)
        model = one.server.sim
        work = type(model.engine.work)()
        work.add(0, len(one.engine[0].prompt), samples=True)
        return Measured(records, one.engine, round(model.engine.step_time.duration_ns(work) / SPEED))


async def drive(one: Simulated, dialect: str) -> list[Record]:
    adapter = load_adapter(dialect)
    address = Address(f"http://127.0.0.1:{one.port}", "127.0.0.1", one.port, False)
    plan = Plan(0, (address,), dialect, adapter.framing, adapter.endpoints[0], Timeouts())
    queue = JobQueue(lambda count: None)
    for job in jobs(dialect, one.port):
        queue.put(job)
    queue.end()
    records: list[Record] = []
    runner = Runner(plan, adapter, queue, records.append, lambda status: None)
    await runner.prepare()
    await asyncio.wait_for(runner.run(lambda mono, wall: None), 60)
    return sorted(records, key=lambda record: record.request_id)


@pytest.fixture(scope="module")
def measured() -> dict[str, Measured]:
    """All dialects at the same time, each with a server and a client of its own."""

    async def all_of_them() -> list[Measured]:
        return await asyncio.gather(*map(measure, names()))

    return dict(zip(names(), asyncio.run(all_of_them()), strict=True))


def first_token_ns(record: Record) -> int:
    assert record.error is None
    assert record.sent_ns is not None
    assert record.first_token_ns is not None
    return record.first_token_ns - record.sent_ns


def gaps_ns(record: Record) -> list[int]:
    return [after - before for before, after in pairwise(record.chunk_ns)]


def modelled_gaps_ns(engine: EngineRequest) -> float:
    """The engine's mean; its steps are too alike for more."""
    return (engine.last_token_ns - engine.first_token_ns) / (engine.produced - 1)


@pytest.mark.parametrize("dialect", names())
def test_every_token_of_the_engine_is_a_token_of_the_record(measured: dict[str, Measured], dialect: str) -> None:
    one = measured[dialect]
    assert [record.output_tokens for record in one.records] == [STEPS] * len(OFFSETS_NS)
    assert [record.prompt_tokens for record in one.records] == [len(engine.prompt) for engine in one.engine]
    # Two events that one read returned are one chunk, of both their tokens.
    assert [sum(filter(None, record.chunk_tokens)) for record in one.records] == [STEPS] * len(OFFSETS_NS)


@pytest.mark.parametrize("dialect", names())
def test_the_engine_is_the_same_one_behind_each_dialect(measured: dict[str, Measured], dialect: str) -> None:
    """A request that is alone starts when it arrives: its modelled TTFT is its prompt's step, to the nanosecond."""
    first = measured[dialect].engine[0]
    assert first.first_token_ns - first.arrival_ns == measured[dialect].modelled_first_ns
    if load_adapter(dialect).endpoints[0] != "chat":
        assert measured[dialect].modelled_first_ns == measured["tgi"].modelled_first_ns


@pytest.mark.parametrize("dialect", names())
def test_ttft_is_the_engines(measured: dict[str, Measured], dialect: str) -> None:
    """Never before the engine has the token; what comes on top is the way there and back."""
    pairs = zip(measured[dialect].records, measured[dialect].engine, strict=True)
    on_top = [first_token_ns(record) - (one.first_token_ns - one.arrival_ns) for record, one in pairs]
    assert min(on_top) > 0
    assert median(on_top) < 20 * MS


@pytest.mark.parametrize("dialect", names())
def test_itl_is_the_engines(measured: dict[str, Measured], dialect: str) -> None:
    one = measured[dialect]
    off = [
        abs(median(gaps_ns(record)) - modelled_gaps_ns(engine))
        for record, engine in zip(one.records, one.engine, strict=True)
    ]
    assert median(off) < 10 * MS
    assert median(modelled_gaps_ns(engine) for engine in one.engine) > 40 * MS
