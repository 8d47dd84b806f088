"""Planned requests -> the bytes that the wire sends, made as they are asked for."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from servemark.harness.errors import BadInput
from servemark.harness.load.messages import Job
from servemark.harness.plan.schedule import Planned, Schedule
from servemark.harness.server.address import request_bytes, request_head
from servemark.harness.server.target import Target
from servemark.harness.types import Options

_REMEMBERED = 65536


class Jobs:
    """Encoded requests; remembers the schedule's hash at each, so that the last one sent can be named."""

    def __init__(self, schedule: Schedule, target: Target, options: Options, run_id: str) -> None:
        self._schedule = schedule
        self._target = target
        self._options = options
        self._run_id = run_id
        self._hashes: dict[int, str] = {}
        made = self._make()
        first = next(made, None)
        if first is None:
            raise BadInput("the workload plans no request: its duration or slice of the trace is too short")
        self._iterator = chain([first], made)

    def __iter__(self) -> Iterator[Job]:
        return self._iterator

    def hash_at(self, count: int) -> tuple[str, int]:
        """The schedule's hash over the first `count` requests, and that count; else over all that were planned."""
        if count in self._hashes:
            return self._hashes[count], count
        return self._schedule.hash_hex, self._schedule.count

    def _make(self) -> Iterator[Job]:
        for each in self._schedule:
            count = self._schedule.count
            self._hashes[count] = self._schedule.hash_hex
            self._hashes.pop(count - _REMEMBERED, None)
            yield encoded(each, self._target, self._options, self._run_id)


def encoded(each: Planned, target: Target, options: Options, run_id: str) -> Job:
    """Raises BadInput where the target's dialect has no words for it."""
    request = each.request
    named = (*target.headers, ("X-Request-Id", f"{run_id}-{each.index}"))
    heads: tuple[bytes, ...] = ()
    try:
        http = target.adapter.encode(request, options)
        if len(target.urls) == 1:
            payload = request_bytes(http, target.url, named)
        else:
            payload, heads = http.body, tuple(request_head(http, url, named) for url in target.urls)
    except ValueError as error:
        raise BadInput(f"request {each.index} cannot be written for target {target.adapter.name}: {error}") from error
    return Job(
        index=each.index,
        offset_ns=each.offset_ns,
        payload=payload,
        heads=heads,
        class_=request.class_,
        session_id=request.session_id,
        turn=request.turn,
        asked_prompt_tokens=request.asked_prompt_tokens,
        asked_output_tokens=request.asked_output_tokens,
    )
