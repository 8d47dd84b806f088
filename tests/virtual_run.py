"""A run on the simulated engine in virtual time: its records, and the counters that a server would show of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from servemark.adapters.sim.engine import Engine, EngineRequest
from servemark.adapters.sim.options import SimOptions
from servemark.adapters.sim.simulation import build_engine
from servemark.harness.figures.frame import Frame, Window
from servemark.harness.types import Record, ServerSample
from tests.frames import START_NS

SCRAPE_NS = 1_000_000_000


@dataclass
class VirtualRun:
    frame: Frame
    samples: list[ServerSample]
    window: Window


@dataclass
class _Streams:
    """The stamps of each request's tokens, one token a chunk."""

    engine: Engine
    records: list[Record] = field(default_factory=list)
    stamps: dict[int, list[int]] = field(default_factory=dict)

    def emitted(self, requests: list[EngineRequest], now_ns: int) -> None:
        for request in requests:
            stamps = self.stamps.setdefault(id(request), [])
            stamps.append(now_ns)
            if request.finish_reason is not None:
                self.records.append(_record(len(self.records), request, stamps))


def virtual_run(requests: list[tuple[int, int, int]], **options: Any) -> VirtualRun:
    """`requests` are (arrival in ms, prompt, output); every prompt is one of its own."""
    engine = build_engine(SimOptions(**options), (0,))
    waiting = [_request(place, *each) for place, each in enumerate(sorted(requests))]
    streams, now_ns, samples = _Streams(engine), START_NS, [_sample(engine, START_NS)]
    while waiting or engine.running or engine.waiting:
        while waiting and waiting[0].arrival_ns <= now_ns:
            engine.submit(waiting.pop(0))
        duration_ns = engine.begin(now_ns)
        if duration_ns is None:
            now_ns = waiting[0].arrival_ns
            continue
        now_ns += duration_ns
        streams.emitted(engine.finish(now_ns), now_ns)
        if now_ns - samples[-1].at_ns >= SCRAPE_NS:
            samples.append(_sample(engine, now_ns))
    samples.append(_sample(engine, now_ns + 1))
    return VirtualRun(Frame.from_records(streams.records), samples, Window(START_NS, now_ns + 1))


def _request(place: int, arrival_ms: int, prompt: int, output: int) -> EngineRequest:
    ids = [place * 100_000 + k for k in range(prompt)]
    return EngineRequest(ids, output, arrival_ns=START_NS + arrival_ms * 1_000_000)


def _record(index: int, request: EngineRequest, stamps: list[int]) -> Record:
    return Record(
        request_id=index,
        class_="default",
        session_id=None,
        turn=0,
        url="http://a",
        worker=0,
        phase="measured",
        intended_ns=request.arrival_ns,
        sent_ns=request.arrival_ns,
        first_token_ns=stamps[0],
        last_token_ns=stamps[-1],
        done_ns=stamps[-1],
        chunk_ns=tuple(stamps),
        chunk_tokens=(1,) * len(stamps),
        prompt_tokens=len(request.prompt),
        output_tokens=request.produced,
        cached_tokens=request.cached_tokens,
        token_source="usage",
    )


def _sample(engine: Engine, at_ns: int) -> ServerSample:
    stats = engine.stats
    values = {
        "iterations": float(sum(stats.step_tokens.counts)),
        "running": float(len(engine.running)),
        "waiting": float(len(engine.waiting)),
        "preemptions": float(stats.preemptions),
        "generation_tokens": float(stats.generation_tokens),
        "est_flops_per_gpu": stats.flops,
        "est_read_bytes_per_gpu": stats.read_bytes,
        "est_write_bytes_per_gpu": stats.written_bytes,
    }
    return ServerSample(at_ns, values)
