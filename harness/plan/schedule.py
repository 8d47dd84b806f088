"""The schedule: request i and its intended offset, a pure function of workload, seeds, data and i."""

from __future__ import annotations

import secrets
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from itertools import count

from servemark.harness.plan.arrivals import OpenLoop
from servemark.harness.plan.cache_rate import Sharing, content_of
from servemark.harness.plan.sections import SeedsSection
from servemark.harness.plan.sources import Given, Prepared, Seeds
from servemark.harness.plan.spec import Loaded, Workload
from servemark.harness.plan.vocabulary import Vocabulary
from servemark.harness.types import Phase, Request

_ENTRY = struct.Struct("<qqqq")


@dataclass(frozen=True, slots=True)
class Planned:
    """A request and when it is intended, from the start of the run; None in a closed loop.

    `phase` is None where only the clock will tell: in a closed loop whose warm-up is a time.
    """

    index: int
    offset_ns: int | None
    request: Request
    phase: Phase | None = None


def resolve_seeds(section: SeedsSection, salt: bool = False) -> Seeds:
    """All seeds; one for the prompts, and a salt if there is to be one, is drawn where the workload names none."""
    prompts = section.prompts if section.prompts is not None else secrets.randbits(63)
    drawn = section.salt if section.salt is not None or not salt else secrets.randbits(63)
    return Seeds(section.arrivals, prompts, section.lengths, section.order, drawn)


def plan(loaded: Loaded, vocabulary: Vocabulary, salt: bool = False) -> Schedule:
    """The schedule of a loaded workload, its prompts salted if that is asked for; reads its data. Raises BadInput."""
    seeds = resolve_seeds(loaded.spec.run.seeds, salt)
    source = loaded.spec.prompts.prepare(Given(seeds, vocabulary, loaded.folder))
    return Schedule(loaded.spec, source, vocabulary, seeds)


class Schedule:
    """Iterates what is planned, in order, and keeps count of it; made for one pass.

    An open loop ends after the requests or the duration that the workload asks for; a closed loop goes on until the
    runner stops it, unless its end is a count. Both end with their source.
    """

    def __init__(self, spec: Workload, source: Prepared, vocabulary: Vocabulary, seeds: Seeds) -> None:
        self.spec = spec
        self.source = source
        self.vocabulary = vocabulary
        self.seeds = seeds
        self.count = 0
        """Requests planned so far."""
        self.planned_in_window = 0
        """Of them, those known to count (phase measured)."""
        self.raised_prompts = 0
        """Of them, those whose asked length was below the least that a prompt can have, and was raised to it."""
        self.sharing = Sharing(0 if spec.prompts.tokens == "ids" else vocabulary.shared_prefix_tokens)
        """What the prompts planned so far begin with."""
        self._hash = sha256(f"servemark schedule 1 {source.data_digest}".encode())

    @property
    def hash_hex(self) -> str:
        """SHA-256 over the offsets, lengths and prompts planned so far, and the data's digest."""
        return self._hash.hexdigest()

    def __iter__(self) -> Iterator[Planned]:
        for index, offset_ns, phase in self._times():
            if self.source.size is not None and index >= self.source.size:
                return
            request = self.source.request(index)
            self._note(request, offset_ns, phase)
            yield Planned(index, offset_ns, request, phase)

    def _times(self) -> Iterator[tuple[int, int | None, Phase | None]]:
        load = self.spec.load
        if isinstance(load, OpenLoop):
            timeline = self.source if self.spec.prompts.timed else None
            return self._open(load.offsets_ns(self.seeds.arrivals, timeline))
        return self._closed()

    def _open(self, offsets_ns: Iterator[int]) -> Iterator[tuple[int, int, Phase]]:
        run, duration_ns = self.spec.run, self.spec.duration_ns
        window_ns: int | None = None if run.warmup.requests else run.warmup.duration_ns
        measured = 0
        for index, offset_ns in enumerate(offsets_ns):
            if window_ns is None and index == run.warmup.requests:
                # After a counted warm-up the window opens with the first request that counts.
                window_ns = offset_ns
            if window_ns is None or offset_ns < window_ns:
                yield index, offset_ns, "warmup"
                continue
            over = duration_ns is not None and offset_ns >= window_ns + duration_ns
            if over or measured == run.requests:
                return
            measured += 1
            yield index, offset_ns, "measured"

    def _closed(self) -> Iterator[tuple[int, None, Phase | None]]:
        run = self.spec.run
        for index in count():
            if run.warmup.duration_ns:
                yield index, None, None
            elif index < run.warmup.requests:
                yield index, None, "warmup"
            elif run.requests is not None and index >= run.warmup.requests + run.requests:
                return
            else:
                yield index, None, "measured"

    def _note(self, request: Request, offset_ns: int | None, phase: Phase | None) -> None:
        self.count += 1
        self.planned_in_window += phase == "measured"
        prompt, asked = request.prompt, request.asked_prompt_tokens
        if asked is not None and asked <= self.vocabulary.fixed_tokens:
            wanted, _ = self.source.lengths(request.index)
            self.raised_prompts += wanted is not None and wanted < asked
        content = content_of(prompt)
        self.sharing.note(content, request.prefixes)
        self._hash.update(
            _ENTRY.pack(
                request.index,
                -1 if offset_ns is None else offset_ns,
                -1 if asked is None else asked,
                -1 if request.asked_output_tokens is None else request.asked_output_tokens,
            )
        )
        self._hash.update(content)
