"""The prefix cache as a run asks for it: emptied before the load, or warmed by a pass of its own.

A composition root, like the command line that calls it: what is below is handed its parts here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import chain

from msgspec.structs import replace as changed

from servemark.harness.clock import SECOND
from servemark.harness.drive import Drive
from servemark.harness.errors import BadInput, TargetUnusable
from servemark.harness.interrupts import Interrupts
from servemark.harness.load.messages import Job, Plan
from servemark.harness.plan.cache_rate import Prefixes, content_of
from servemark.harness.plan.encoding import encoded
from servemark.harness.plan.schedule import Planned, Schedule
from servemark.harness.plan.spec import Loaded
from servemark.harness.server.caching import CacheState, WarmUp, made_cold, server_cache
from servemark.harness.server.target import Target
from servemark.harness.types import Options, Record, WorkerReport

CONCURRENCY = 8
"""Of the warm-up before an open loop; before a closed one it is the loop's own."""
_ALL_OF_IT_NS = 10**6 * SECOND


def begun(loaded: Loaded, target: Target) -> CacheState:
    """The cache before anything is planned: emptied where the run is to be cold, else as it is."""
    protocol = loaded.spec.run.cache
    return made_cold(target) if protocol == "cold" else CacheState(protocol, server=server_cache(target.facts.settings))


@dataclass(slots=True)
class WarmPass:
    """Sends each prompt that comes again to each server once, for one token of answer. Nothing of it is measured."""

    loaded: Loaded
    schedule: Schedule
    target: Target
    options: Options
    plan: Plan
    run_id: str
    quiet: bool
    _pending: dict[int, tuple[bytes, Prefixes]] = field(default_factory=dict)
    _prompts: int = 0
    _prompt_tokens: int = 0
    _requests: int = 0
    _failures: list[str] = field(default_factory=list)

    def made(self, state: CacheState, interrupts: Interrupts) -> CacheState:
        """The cache after it. Raises BadInput or TargetUnusable, and KeyboardInterrupt where it was stopped."""
        seconds = 0.0
        for place in range(len(self.target.urls)):
            report = self._sent_to(place, interrupts)
            seconds += (report.ended_ns - report.started_ns) / SECOND
        failure = self._failures[0] if self._failures else None
        told = WarmUp(
            self._prompts, self._prompt_tokens, self._requests, len(self._failures), round(seconds, 3), failure
        )
        return replace(state, how="warmed", warm_up=told)

    def _sent_to(self, place: int, interrupts: Interrupts) -> WorkerReport:
        replica = self.target.replicas[place]
        # Its own address only: each server has a cache of its own.
        target = replace(self.target, url=replica.url, control=replica.control, facts=replica.facts, others=())
        self._prompts = self._prompt_tokens = 0
        before, failed = self._requests, len(self._failures)
        title = f"{self.loaded.name}: warming the cache"
        drive = Drive(target, self._plan(place), self._jobs(target), self, (), title, self.quiet)
        report, _ = asyncio.run(drive.run(interrupts))
        interrupts.to_end()
        if report is not None and report.stop_reason == "interrupted":
            raise KeyboardInterrupt
        if report is None or len(self._failures) - failed == self._requests - before:
            why = self._failures[-1] if self._failures else "the load generator ended without its report"
            raise TargetUnusable(f"{replica.url} answered no request of the warm-up ({why}); nothing was measured")
        return report

    def _plan(self, place: int) -> Plan:
        """A closed loop to the end of the prompts, which waits for every answer."""
        concurrency = self.plan.concurrency or CONCURRENCY
        return changed(
            self.plan,
            addresses=(self.plan.addresses[place],),
            concurrency=concurrency,
            max_in_flight=None,
            ramp_up_ns=0,
            connections_ahead=concurrency,
            warmup_ns=_ALL_OF_IT_NS,
            warmup_requests=0,
            duration_ns=None,
            measured_requests=None,
            drain_ns=self.plan.timeouts.total_ns,
        )

    def _jobs(self, target: Target) -> Iterator[Job]:
        prompts = self.loaded.spec.source
        found = enumerate(prompts.repeats(self.schedule.source))
        first = next(found, None)
        if first is None:
            raise BadInput(f"the source {prompts.source} names no prompts to warm the cache with; take cold or as_is")
        for index, request in chain([first], found):
            self._pending[index] = (content_of(request.prompt, request.history), request.prefixes)
            self._prompts += 1
            asked = replace(request, index=index, asked_output_tokens=1)
            yield encoded(Planned(index, None, asked), target, self.options, f"{self.run_id}-warm-up")

    def record(self, record: Record) -> None:
        """Only what was answered is in the cache."""
        content, declared = self._pending.pop(record.request_id)
        self._requests += 1
        if record.error is not None:
            self._failures.append(f"{record.error}: {record.error_detail}" if record.error_detail else record.error)
            return
        self._prompt_tokens += record.prompt_tokens or record.asked_prompt_tokens or 0
        self.schedule.sharing.note_warmed(record.url, content, declared)

    def flush_due(self, at_ns: int) -> None:
        """Nothing of it is written."""
