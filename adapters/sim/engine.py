"""A continuous-batching scheduler after vLLM's V1 engine. Pure: it does no I/O and is told what time it is.

One step gives tokens to the running requests first, in order of admission, then admits waiting ones first come, first
served, all from one token budget: decodes take one token each, prompts are cut into chunks that fill the rest.
When the KV blocks run out, the request admitted last loses its blocks and goes back to the head of the queue; it
computes its prompt and what it had produced anew (or finds it in the prefix cache) when it is admitted again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from servemark.adapters.sim.blocks import BlockPool, extend_hashes
from servemark.adapters.sim.stats import EngineStats
from servemark.adapters.sim.steptime import StepTime, StepWork


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """`blocks` of `block_size` tokens each is the KV memory; the defaults are vLLM's for an H100 API server,
    but for `max_num_seqs`, which newer versions set to 1024 there."""

    blocks: int
    block_size: int = 16
    max_num_seqs: int = 256
    max_num_batched_tokens: int = 8192
    prefix_caching: bool = True

    @property
    def kv_tokens(self) -> int:
        return self.blocks * self.block_size


@dataclass(slots=True, eq=False)
class EngineRequest:
    """One request and its state. `ends_at` is the output length at which it draws EOS, None where EOS is ignored.

    Its answer is the cycle of the engine's answer ids that begins at `answer_start`. In the prefix cache it finds only
    what has the same `salt`. `tag` is the caller's.
    """

    prompt: Sequence[int]
    max_tokens: int
    arrival_ns: int = 0
    ends_at: int | None = None
    answer_start: int = 0
    salt: int = 0
    tag: Any = None

    tokens: list[int] = field(init=False)
    produced: int = field(init=False, default=0)
    computed: int = field(init=False, default=0)
    cached_tokens: int = field(init=False, default=0)
    preemptions: int = field(init=False, default=0)
    finish_reason: str | None = field(init=False, default=None)
    admitted_ns: int | None = field(init=False, default=None)
    first_token_ns: int = field(init=False, default=0)
    last_token_ns: int = field(init=False, default=0)
    blocks: list[int] = field(init=False, default_factory=list)
    hashes: list[int] = field(init=False, default_factory=list)
    shared: int = field(init=False, default=0)  # how many of its blocks the prefix cache knows

    def __post_init__(self) -> None:
        self.tokens = list(self.prompt)

    @property
    def spoken(self) -> int:
        """How many tokens of the answer have text: all but an EOS."""
        return self.produced - (self.finish_reason == "stop")


@dataclass(frozen=True, slots=True)
class Step:
    duration_ns: int
    emitted: list[EngineRequest]
    """Requests that got one token each at the end of the step; `finish_reason` is set on those that ended."""


class Engine:
    def __init__(self, config: EngineConfig, step_time: StepTime, answer_ids: Sequence[int] = (0,)) -> None:
        self.config = config
        self.step_time = step_time
        self.answer_ids = answer_ids
        self.pool = BlockPool(config.blocks, config.prefix_caching)
        self.stats = EngineStats()
        self.waiting: deque[EngineRequest] = deque()
        self.running: list[EngineRequest] = []
        self.work = step_time.work()
        """Of the step that began last."""
        self._outlay = step_time.outlay(self.work)
        self._scheduled: list[tuple[EngineRequest, int]] = []

    def submit(self, request: EngineRequest) -> None:
        """Queues it. Its prompt and answer together must fit the KV memory, or it could never end."""
        if not request.prompt or request.max_tokens < 1:
            raise ValueError("a request has at least one prompt token and asks for at least one token")
        if len(request.prompt) + request.max_tokens > self.config.kv_tokens:
            raise ValueError(f"prompt and max_tokens exceed the KV memory of {self.config.kv_tokens} tokens")
        self.waiting.append(request)

    def abort(self, request: EngineRequest) -> None:
        """Its blocks are free at once. Aborting a request that has ended does nothing."""
        if request.finish_reason is not None:
            return
        if request in self.running:
            self.running.remove(request)
        else:
            self.waiting.remove(request)
        self._end(request, "abort")

    def step(self, now_ns: int) -> Step | None:
        """A whole step that starts now; None when there is nothing to do."""
        duration_ns = self.begin(now_ns)
        return None if duration_ns is None else Step(duration_ns, self.finish(now_ns + duration_ns))

    def begin(self, now_ns: int) -> int | None:
        """Schedules a step over what has arrived by now and returns how long it takes, None when nothing is there."""
        self._scheduled, self.work = [], (work := self.step_time.work())
        budget, preempted = self._continue_running(self.config.max_num_batched_tokens, work)
        if not preempted:
            self._admit_waiting(budget, work, now_ns)
        self._outlay = self.step_time.outlay(work)
        return self._outlay.duration_ns(self.step_time.device.overhead_ns) if self._scheduled else None

    def finish(self, now_ns: int) -> list[EngineRequest]:
        """Ends the step that `begin` scheduled: every request whose tokens are all computed gets its next one."""
        emitted, prefilled, ended = [], 0, False
        for request, new in self._scheduled:
            if request.finish_reason is not None:  # aborted meanwhile
                continue
            request.computed += new
            if request.computed < len(request.tokens):
                continue
            prefilled += len(request.prompt) if request.produced == 0 else 0
            self._produce(request, now_ns)
            emitted.append(request)
            ended = ended or request.finish_reason is not None
        if ended:
            self.running = [request for request in self.running if request.finish_reason is None]
        self._scheduled = []
        self.stats.steps += 1
        self.stats.flops += self._outlay.flops
        self.stats.read_bytes += self._outlay.read
        self.stats.written_bytes += self._outlay.written
        self.stats.generation_tokens += len(emitted)
        self.stats.first_token_steps += prefilled > 0
        if emitted:
            self.stats.step_tokens.observe(prefilled + len(emitted))
        return emitted

    # -- scheduling

    def _continue_running(self, budget: int, work: StepWork) -> tuple[int, bool]:
        preempted, index = False, 0
        while index < len(self.running) and budget > 0:
            request = self.running[index]
            new = min(len(request.tokens) - request.computed, budget)
            missing = -(-(request.computed + new) // self.config.block_size) - len(request.blocks)
            if missing > 0:
                if self.pool.free < missing:
                    preempted = True
                    if not self._make_room(missing, request):
                        break
                request.blocks += self.pool.take(missing)
            self._schedule(request, new, work)
            budget -= new
            index += 1
        return budget, preempted

    def _make_room(self, blocks: int, wanting: EngineRequest) -> bool:
        """Preempts from the tail of the running requests; False when that came to the wanting one itself."""
        while self.pool.free < blocks:
            victim = self.running.pop()
            self.pool.release(victim.blocks)
            victim.blocks, victim.computed, victim.shared = [], 0, 0
            victim.preemptions += 1
            self.stats.preemptions += 1
            self.waiting.appendleft(victim)
            if victim is wanting:
                return False
        return True

    def _admit_waiting(self, budget: int, work: StepWork, now_ns: int) -> None:
        size = self.config.block_size
        while self.waiting and budget > 0 and len(self.running) < self.config.max_num_seqs:
            request = self.waiting[0]
            if request.arrival_ns > now_ns:
                break
            known = self._known_prefix(request)
            # Admitted only when the whole of it fits: half-admitted prompts would preempt each other for ever.
            missing = -(-len(request.tokens) // size) - len(known)
            if self.pool.free - self.pool.idle(known) < missing:
                break
            self.waiting.popleft()
            self.running.append(request)
            self.pool.take_cached(known)
            request.computed = len(known) * size
            request.shared = len(known)
            self._note_admission(request, now_ns)
            new = min(len(request.tokens) - request.computed, budget)
            request.blocks = known + self.pool.take(-(-(request.computed + new) // size) - len(known))
            self._schedule(request, new, work)
            budget -= new

    def _known_prefix(self, request: EngineRequest) -> list[int]:
        """At least the last token is computed anew, since its output is what is wanted."""
        if not self.config.prefix_caching:
            return []
        extend_hashes(request.hashes, request.tokens, self.config.block_size, request.salt)
        return self.pool.cached_prefix(request.hashes[: (len(request.tokens) - 1) // self.config.block_size])

    def _schedule(self, request: EngineRequest, new: int, work: StepWork) -> None:
        end = request.computed + new
        work.add(request.computed, new, samples=end == len(request.tokens))
        self._scheduled.append((request, new))
        full = end // self.config.block_size
        if full > request.shared and self.config.prefix_caching:
            extend_hashes(request.hashes, request.tokens, self.config.block_size, request.salt)
            for index in range(request.shared, full):
                self.pool.remember(request.blocks[index], request.hashes[index])
            request.shared = full

    # -- bookkeeping

    def _note_admission(self, request: EngineRequest, now_ns: int) -> None:
        """The prefix cache's counters take a request once, not again after a preemption."""
        if request.admitted_ns is not None:
            return
        request.admitted_ns = now_ns
        request.cached_tokens = request.computed
        self.stats.queue_s.observe((now_ns - request.arrival_ns) / 1e9)
        if self.config.prefix_caching:
            self.stats.prefix_queries += len(request.prompt)
            self.stats.prefix_hits += request.cached_tokens

    def _produce(self, request: EngineRequest, now_ns: int) -> None:
        position = request.answer_start + request.produced
        request.tokens.append(self.answer_ids[position % len(self.answer_ids)])
        request.produced += 1
        if request.produced == 1:
            request.first_token_ns = now_ns
            self.stats.ttft_s.observe((now_ns - request.arrival_ns) / 1e9)
            self.stats.prompt_tokens += len(request.prompt)
            self.stats.cached_prompt_tokens += request.cached_tokens
        else:
            self.stats.itl_s.observe((now_ns - request.last_token_ns) / 1e9)
        request.last_token_ns = now_ns
        if request.ends_at is not None and request.produced >= request.ends_at:
            self._end(request, "stop")
        elif request.produced >= request.max_tokens:
            self._end(request, "length")

    def _end(self, request: EngineRequest, reason: str) -> None:
        request.finish_reason = reason
        self.pool.release(request.blocks)
        request.blocks = []
        self.stats.finished[reason] += 1
        if reason == "abort":
            return
        stats, admitted_ns = self.stats, request.admitted_ns or 0
        stats.request_prompt_tokens.observe(len(request.prompt))
        stats.request_generation_tokens.observe(request.produced)
        stats.e2e_s.observe((request.last_token_ns - request.arrival_ns) / 1e9)
        stats.prefill_s.observe((request.first_token_ns - admitted_ns) / 1e9)
        stats.inference_s.observe((request.last_token_ns - admitted_ns) / 1e9)
        decode_s = (request.last_token_ns - request.first_token_ns) / 1e9
        stats.decode_s.observe(decode_s)
        if request.produced > 1:
            stats.tpot_s.observe(decode_s / (request.produced - 1))
