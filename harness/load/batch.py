"""A whole load as one batch, for an engine that is no server of single requests: it stamps, and nothing is paced.

Stands in for a `Fleet`. Offset 0 is when the engine got the first request; every request counts from there.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import httpx

from servemark.harness.clock import SECOND, now_ns, wall_offset_ns
from servemark.harness.load.messages import Job, Plan, Started, Status
from servemark.harness.load.reading import believable
from servemark.harness.types import Adapter, ErrorKind, Phase, Record, StopReason, WorkerReport

_STATUS_EVERY_NS = SECOND // 4
_KINDS = ("started_ns", "ended_ns", "index")
_NUMBERS = (*_KINDS, "first_ns", "last_ns")


class BatchFleet:
    """One batch. `jobs` is read to its end before anything is sent."""

    def __init__(
        self,
        adapter: Adapter,
        plan: Plan,
        jobs: Iterator[Job],
        *,
        on_record: Callable[[Record], None],
        on_status: Callable[[Status], None],
        on_started: Callable[[Started], None],
    ) -> None:
        assert adapter.batch_path is not None
        self._plan = plan
        self._adapter = adapter
        self._path = adapter.batch_path
        self._jobs = jobs
        self._on_record = on_record
        self._on_status = on_status
        self._on_started = on_started
        self._left: dict[int, Job] = {}
        self._started_ns = self._ended_ns = 0
        self._finished = self._told_ns = 0
        self._sending: asyncio.Task[None] | None = None
        self._interrupted = self._lost = False

    async def run(self) -> WorkerReport | None:
        """Sends the batch and waits for its end. What the engine never answered is recorded as failed."""
        cpu_ns = time.process_time_ns()
        self._left = {job.index: job for job in self._jobs}
        count = len(self._left)
        self._started_ns = now_ns()
        self._sending = asyncio.create_task(self._send())
        failure: str | None = None
        try:
            await self._sending
        except (httpx.RequestError, ValueError) as error:
            failure = str(error) or type(error).__name__
        except asyncio.CancelledError:
            if not self._interrupted:
                raise
        self._give_up(failure)
        return self._report(count, self._lost or failure is not None, time.process_time_ns() - cpu_ns)

    def stop(self, drain_ns: int, reason: StopReason = "interrupted") -> None:
        """Ends the batch; what has ended by then is kept."""
        self._lost = self._lost or (reason == "server_lost" and not self._interrupted)
        self._interrupted = True
        if self._sending is not None:
            asyncio.get_running_loop().call_later(drain_ns / SECOND, self._sending.cancel)

    async def _send(self) -> None:
        (address,) = self._plan.addresses
        body = b"".join(_body(job) + b"\n" for job in self._left.values())
        async with (
            httpx.AsyncClient(timeout=httpx.Timeout(None, connect=10), trust_env=False) as client,
            client.stream("POST", address.url + self._path, content=body) as answer,
        ):
            if answer.status_code != 200:
                raise httpx.ReadError(f"status {answer.status_code} for {self._path}")
            async for line in answer.aiter_lines():
                self._take(_answer(line), line.encode())

    def _take(self, line: Mapping[str, Any], event: bytes) -> None:
        if line.get("started_ns") is not None:
            self._started_ns = line["started_ns"]
            self._on_started(Started(self._started_ns, self._started_ns + wall_offset_ns()))
        elif line.get("ended_ns") is not None:
            self._ended_ns = line["ended_ns"]
        elif (job := self._left.get(line["index"])) is not None:
            record = self._record(job, line, event)
            del self._left[job.index]
            self._on_record(record)
            self._finished += 1
            self._tell()

    def _record(self, job: Job, line: Mapping[str, Any], event: bytes) -> Record:
        decoder = self._adapter.decoder(self._plan.endpoint)
        decoder.feed(event)
        outcome = believable(decoder.finish(True))
        usage, tokens = outcome.usage, outcome.usage.output_tokens or 0
        stamps, sizes = _chunks(line.get("first_ns"), line.get("last_ns"), tokens)
        return Record(
            **self._about(job),
            sent_ns=self._started_ns,
            first_byte_ns=stamps[0] if stamps else None,
            first_token_ns=stamps[0] if stamps else None,
            first_answer_ns=stamps[0] if stamps else None,
            last_token_ns=stamps[-1] if stamps else None,
            done_ns=stamps[-1] if stamps else now_ns(),
            chunk_ns=stamps,
            chunk_tokens=sizes,
            prompt_tokens=usage.prompt_tokens,
            output_tokens=usage.output_tokens,
            cached_tokens=usage.cached_tokens,
            token_source=usage.source,
            finish_reason=outcome.finish_reason,
            http_status=200,
            error=outcome.error,
            error_detail=outcome.error_detail,
            reads=len(stamps),
        )

    def _about(self, job: Job) -> dict[str, Any]:
        phase: Phase = "warmup" if job.index < self._plan.warmup_requests else "measured"
        return {
            "request_id": job.index,
            "class_": job.class_,
            "session_id": job.session_id,
            "turn": job.turn,
            "url": self._plan.addresses[0].url,
            "worker": self._plan.worker,
            "phase": phase,
            "intended_ns": self._started_ns,
            "asked_prompt_tokens": job.asked_prompt_tokens,
            "asked_output_tokens": job.asked_output_tokens,
            "stamp": "engine",
        }

    def _give_up(self, failure: str | None) -> None:
        """What has no answer: lost with the engine, or abandoned by the user."""
        kind: ErrorKind = "reset" if failure else "abandoned"
        detail = failure or "the batch was stopped"
        for job in self._left.values():
            facts = self._about(job) | {"sent_ns": self._started_ns, "done_ns": now_ns()}
            self._on_record(Record(**facts, error=kind, error_detail=detail))

    def _tell(self) -> None:
        if now_ns() - self._told_ns >= _STATUS_EVERY_NS:
            self._told_ns = now_ns()
            sent = self._finished + len(self._left)
            self._on_status(Status(now_ns(), sent, len(self._left), self._finished, self._finished))

    def _report(self, count: int, lost: bool, cpu_ns: int) -> WorkerReport:
        return WorkerReport(
            worker=self._plan.worker,
            started_ns=self._started_ns,
            started_wall_ns=self._started_ns + wall_offset_ns(),
            ended_ns=self._ended_ns or now_ns(),
            issued=count,
            schedule_finished=not self._interrupted,
            stop_reason="server_lost" if lost else "interrupted" if self._interrupted else "finished",
            late_jobs=0,
            max_late_job_ns=0,
            stalls=0,
            max_stall_ns=0,
            cpu_ns=cpu_ns,
            wall_step_ns=0,
            reconnects=0,
            drained=not self._left,
        )


def _answer(text: str) -> Mapping[str, Any]:
    """A line of the answer; ValueError where it is none."""
    try:
        line = json.loads(text)
    except RecursionError:
        line = None
    numbers = [line[name] for name in _NUMBERS if line.get(name) is not None] if isinstance(line, dict) else []
    if not any(line.get(name) is not None for name in _KINDS if numbers) or not all(map(_is_whole, numbers)):
        raise ValueError(f"{text[:80]!r} is no line of a batch's answer")
    found: Mapping[str, Any] = line
    return found


def _is_whole(value: object) -> bool:
    return type(value) is int and abs(value) < 2**63


def _body(job: Job) -> bytes:
    """The request's line; its HTTP head is for servers of single requests."""
    return job.payload.partition(b"\r\n\r\n")[2]


def _chunks(first_ns: int | None, last_ns: int | None, tokens: int) -> tuple[tuple[int, ...], tuple[int | None, ...]]:
    """The engine tells when the first and the last token were there; those between stand with the last."""
    if not tokens or first_ns is None or last_ns is None:
        return (), ()
    return ((first_ns,), (1,)) if tokens == 1 else ((first_ns, last_ns), (1, tokens - 1))
