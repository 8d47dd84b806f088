"""The schedule: request i and its intended offset, a pure function of workload, seeds, data and i."""

from __future__ import annotations

import secrets
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import repeat

from servemark.harness.errors import BadInput
from servemark.harness.plan.arrivals import OpenLoop
from servemark.harness.plan.cache_rate import Sharing, content_of
from servemark.harness.plan.sections import SeedsSection
from servemark.harness.plan.sentences import placed
from servemark.harness.plan.sources import Given, Prepared, Seeds, made_ready
from servemark.harness.plan.spec import Loaded, Workload
from servemark.harness.plan.vocabulary import Vocabulary
from servemark.harness.types import Phase, Request

_ENTRY = struct.Struct("<qqqq")
_TURNS = struct.Struct("<q")


@dataclass(frozen=True, slots=True)
class Planned:
    """A request and when it is intended, from the start of the run; None in a closed loop.

    `phase` is None where only the clock will tell: in a closed loop whose warm-up is a time. Of a session this is the
    first of its `turns`; `item` is the source's number for it.
    """

    index: int
    offset_ns: int | None
    request: Request
    phase: Phase | None = None
    item: int = 0
    turns: int = 1


def resolve_seeds(section: SeedsSection, salt: bool = False) -> Seeds:
    """All seeds; one for the prompts, and a salt if there is to be one, is drawn where the workload names none."""
    prompts = section.prompts if section.prompts is not None else secrets.randbits(63)
    drawn = section.salt if section.salt is not None or not salt else secrets.randbits(63)
    return Seeds(section.arrivals, prompts, section.lengths, section.order, drawn)


def plan(loaded: Loaded, vocabulary: Vocabulary, salt: bool = False) -> Schedule:
    """The schedule of a loaded workload, its prompts salted if that is asked for; reads its data. Raises BadInput."""
    seeds = resolve_seeds(loaded.spec.run.seeds, salt)
    try:
        source = made_ready(loaded.spec.source, Given(seeds, vocabulary, loaded.folder))
    except BadInput as error:
        raise BadInput(placed(str(error), loaded.document, loaded.raw)) from error
    return Schedule(loaded.spec, source, vocabulary, seeds)


class Schedule:
    """Iterates what is planned, in order, and keeps count of it; made for one pass.

    An item of the source is a request, or a session, whose later turns are made when the turn before is answered; the
    indexes of all its turns are taken when it is planned. An open loop ends after the requests or the duration that the
    workload asks for, and a session that has begun goes on; a closed loop goes on until the runner stops it, unless its
    end is a count. Both end with their source.
    """

    def __init__(self, spec: Workload, source: Prepared, vocabulary: Vocabulary, seeds: Seeds) -> None:
        self.spec = spec
        self.source = source
        self.vocabulary = vocabulary
        self.seeds = seeds
        self.count = 0
        """Items planned so far."""
        self.planned_in_window = 0
        """Of them, those known to count (phase measured)."""
        self.index = 0
        """Of the next item's first request: how many requests the items so far make, if all are answered."""
        self.raised_prompts = 0
        """Of them, those whose asked length was below the least that a prompt can have, and was raised to it."""
        self.sharing = Sharing(0 if spec.source.tokens == "ids" else vocabulary.shared_prefix_tokens)
        """What the prompts planned so far begin with."""
        self._window_ns: int | None = None
        self._measured = 0  # requests that the items make which are known to count
        self._hash = sha256(f"servemark schedule 1 {source.data_digest}".encode())

    @property
    def hash_hex(self) -> str:
        """SHA-256 over what was planned so far (offsets, lengths, first prompts, numbers of turns) and the data."""
        return self._hash.hexdigest()

    def __iter__(self) -> Iterator[Planned]:
        for item, offset_ns in enumerate(self._offsets_ns()):
            if not self.source.holds(item):
                return
            phase = self._phase(offset_ns)
            if self._over(offset_ns, phase):
                return
            yield self._planned(item, offset_ns, phase)

    def _offsets_ns(self) -> Iterator[int | None]:
        load = self.spec.load
        if isinstance(load, OpenLoop):
            return load.offsets_ns(self.seeds.arrivals, self.source if self.spec.source.timed else None)
        return repeat(None)

    def _phase(self, offset_ns: int | None) -> Phase | None:
        warmup = self.spec.run.warmup
        if self.index < warmup.requests:
            return "warmup"
        if offset_ns is None:
            return None if warmup.duration_ns else "measured"
        if self._window_ns is None:  # after a counted warm-up the window opens with the first request that counts
            self._window_ns = offset_ns if warmup.requests else warmup.duration_ns
        return "measured" if offset_ns >= self._window_ns else "warmup"

    def _over(self, offset_ns: int | None, phase: Phase | None) -> bool:
        """No item begins after the planned time, nor when those that count make the requests that are asked for."""
        if phase != "measured":
            return False
        if self._measured >= (self.spec.run.requests or sys.maxsize):
            return True
        duration_ns = self.spec.duration_ns
        if offset_ns is None or self._window_ns is None or duration_ns is None:
            return False
        return offset_ns >= self._window_ns + duration_ns

    def _planned(self, item: int, offset_ns: int | None, phase: Phase | None) -> Planned:
        index, turns, request = self.index, self.source.turns(item), self.source.request(item)
        if turns > 1:
            request = replace(request, index=index, session_id=f"s{item}", turn=0)
        elif request.index != index:
            request = replace(request, index=index)
        planned = Planned(index, offset_ns, request, phase, item, turns)
        self._note(planned)
        return planned

    def _note(self, planned: Planned) -> None:
        request, turns = planned.request, planned.turns
        self.index += turns
        self.count += 1
        if planned.phase == "measured":
            self.planned_in_window += 1
            self._measured += turns
        self._note_raised(planned.item, request.asked_prompt_tokens)
        content = content_of(request.prompt, request.history)
        self.sharing.note(content, request.prefixes, request.index)
        numbers = (request.index, planned.offset_ns, request.asked_prompt_tokens, request.asked_output_tokens)
        self._hash.update(_ENTRY.pack(*(-1 if number is None else number for number in numbers)))
        self._hash.update(content)
        if turns > 1:
            self._hash.update(_TURNS.pack(turns))

    def _note_raised(self, item: int, asked: int | None) -> None:
        if asked is not None and asked <= self.vocabulary.fixed_tokens:
            wanted, _ = self.source.lengths(item)
            self.raised_prompts += wanted is not None and wanted < asked
