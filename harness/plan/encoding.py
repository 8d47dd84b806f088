"""Planned requests -> the bytes that the wire sends, made as they are asked for."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from servemark.harness.errors import BadInput
from servemark.harness.load.messages import Job, SessionOver
from servemark.harness.plan.habits import Habits
from servemark.harness.plan.schedule import Planned, Schedule
from servemark.harness.plan.sessions import Sessions
from servemark.harness.server.address import request_bytes, request_head
from servemark.harness.server.target import Target
from servemark.harness.types import Options, Record

_REMEMBERED = 65536


class Jobs:
    """Encoded requests, in the order of the schedule; `follow` gives the later turns of sessions.

    Remembers the schedule's hash at each item, so that the last one sent can be named.
    """

    def __init__(self, schedule: Schedule, target: Target, options: Options, run_id: str) -> None:
        self._schedule = schedule
        self._target = target
        self._options = options
        self._run_id = run_id
        self._hashes: dict[int, str] = {}
        self._habits = Habits(schedule.spec, schedule.seeds.arrivals)
        self._sessions = Sessions(schedule.source, schedule.sharing)
        made = self._make()
        first = next(made, None)
        if first is None:
            raise BadInput("the workload plans no request: its duration or slice of the trace is too short")
        self._iterator = chain([first], made)

    def __iter__(self) -> Iterator[Job]:
        return self._iterator

    def hash_at(self, count: int) -> tuple[str, int]:
        """The schedule's hash over the first `count` items, and that count; else over all that were planned."""
        if count in self._hashes:
            return self._hashes[count], count
        return self._schedule.hash_hex, self._schedule.count

    def follow(self, record: Record, answer: str | None) -> Job | SessionOver | None:
        """What follows a turn that has ended, None where nothing was to. `answer` is its text, where it has succeeded.

        Raises BadInput where the target's dialect has no words for it.
        """
        if record.session_id is None or not self._sessions.awaits(record):
            return None
        found = self._sessions.after(record, answer)
        if found is None:
            return SessionOver(record.session_id)
        return self._encoded(found.planned, found.due_ns)

    def _make(self) -> Iterator[Job]:
        for each in self._schedule:
            count = self._schedule.count
            self._hashes[count] = self._schedule.hash_hex
            self._hashes.pop(count - _REMEMBERED, None)
            _refuse_batch(each, self._target)
            self._sessions.began(each)
            yield self._encoded(each)

    def _encoded(self, each: Planned, due_ns: int | None = None) -> Job:
        return encoded(each, self._target, self._options, self._run_id, due_ns, self._habits)


def _refuse_batch(each: Planned, target: Target) -> None:
    if each.turns > 1 and target.adapter.batch_path is not None:
        raise BadInput(
            f"target {target.adapter.name} runs the whole load as one batch, but a session's later turns hold the "
            "answers to its earlier ones; take a workload of single requests, or a target that serves"
        )


def encoded(
    each: Planned,
    target: Target,
    options: Options,
    run_id: str,
    due_ns: int | None = None,
    habits: Habits | None = None,
) -> Job:
    """`due_ns` is when a later turn is intended. Raises BadInput where the target's dialect has no words for it."""
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
        turns=each.turns,
        more=request.turn + 1 < each.turns,
        due_ns=due_ns,
        asked_prompt_tokens=request.asked_prompt_tokens,
        asked_output_tokens=request.asked_output_tokens,
        think_ns=habits.think_ns(each.index) if habits and not request.turn else 0,
        give_up_ns=habits.give_up_ns(each.index) if habits else None,
    )
