"""Carries a search out: asks what is to be measured next, makes that run, and goes on where an earlier start stopped.

A composition root: each point is an ordinary run, made by `measure`.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import count

from servemark.dashboards.aside import aside
from servemark.dashboards.search import asking, load_of, told
from servemark.harness.clock import SECOND
from servemark.harness.errors import EXIT_GATE_MISSED, EXIT_INVALID, EXIT_OK
from servemark.harness.interrupts import Interrupts
from servemark.harness.launch.launching import Engine
from servemark.harness.matrix.labels import slug
from servemark.harness.matrix.rest import rested, standing
from servemark.harness.measure import measure
from servemark.harness.plan.draws import random_bytes
from servemark.harness.plan.overrides import SET
from servemark.harness.plan.spec import load_workload
from servemark.harness.prepare import Asked, credentials, started, without
from servemark.harness.search.cost import economics
from servemark.harness.search.deciding import Answer, Measure, decide, points_of
from servemark.harness.search.wanted import Wanted
from servemark.harness.server.address import Headers, build_headers
from servemark.harness.server.discovery import load_adapter
from servemark.harness.server.scrape import Access
from servemark.results.index_file import LOCK, held, make_room
from servemark.results.search import SEARCH_JSON, Entry, Index, SearchShelf, of_run


class Stopped(Exception):
    """A run was INVALID for a reason that another load would not mend."""


@dataclass(slots=True)
class Search:
    """A search under way."""

    asked: Asked
    wanted: Wanted
    shelf: SearchShelf
    index: Index
    interrupted: bool = False

    @property
    def next(self) -> Measure | Answer:
        return decide(self.wanted.axis, self.wanted.claim, self.index.outcomes())

    @property
    def exit_code(self) -> int:
        """4 where there is no answer, or none that says whether --at-least is reached; 1 where it is not."""
        answer, least = self.index.answer, self.wanted.at_least
        if answer is None or answer["kind"] == "void":
            return EXIT_INVALID
        if least is None or (answer["load"] or 0) >= least:
            return EXIT_OK
        return EXIT_INVALID if answer["kind"] == "client" else EXIT_GATE_MISSED

    def carry_out(self) -> None:
        """Until there is an answer or a signal comes; what was measured by then is in the index."""
        with held(self.shelf.root, "bench search"), Interrupts():
            try:
                self._note()
                if isinstance(self.next, Measure):
                    with self._running() as engine:
                        self._to_the_end(engine)
            except KeyboardInterrupt:
                self.interrupted = True
            except Stopped as stopped:
                self.index.stopped = str(stopped)
            finally:
                self._note()
                self._leave_nothing_empty()

    def _to_the_end(self, engine: Engine | None) -> None:
        while isinstance(step := self.next, Measure):
            self._measure(step, engine)

    @contextlib.contextmanager
    def _running(self) -> Iterator[Engine | None]:
        """The engine that is launched once for all points; None where none is."""
        if self.asked.launch is None:
            yield None
            return
        launch = replace(self.asked.launch, log=self.shelf.root / "engine.start.log")
        adapter, headers = load_adapter(self.asked.target), self._headers()
        with without(credentials(headers)), started(adapter, launch, headers, self.asked.quiet) as engine:
            yield engine

    def _measure(self, step: Measure, engine: Engine | None) -> None:
        entry = self._begun(step)
        asked = self._asked(step.load, entry)
        self._say(asking(self.index.to_json(), entry.load, entry.why))
        if len(self.index.runs) > 1:
            self._rest(engine)
        measured = measure(asked, engine)
        found = of_run(entry, measured.folder)
        if measured.run["worker"].get("stop_reason") == "interrupted":
            found.state = "interrupted"
        self.index.runs[-1] = found
        self._note()
        if found.state == "interrupted":
            raise KeyboardInterrupt
        if found.state == "stopped":
            raise Stopped(f"the run at {load_of(self.index.to_json(), found.load)} is INVALID: {found.reason}")
        self._say(told(self.index.to_json(), found.id))

    def _rest(self, engine: Engine | None) -> None:
        """No run is to meet what the one before has left at work."""
        asked, adapter = self.asked, load_adapter(self.asked.target)
        servers = standing(adapter, asked.urls, engine)
        access = Access(servers, self._headers(), asked.cacert, asked.insecure)
        if said := rested(adapter, access, asked.metrics_urls, self.wanted.cool_down_ns / SECOND):
            self._say(f"{said}; going on all the same")

    def _headers(self) -> Headers:
        loaded = load_workload(self.asked.workload, self.wanted.flags(self.asked.flags, self.wanted.axis.start))
        return build_headers(self.asked.api_key_env, loaded.spec.request.headers)

    def _begun(self, step: Measure) -> Entry:
        """The entry of the run, in the index before it begins, so that a run is known whatever happens."""
        index = self.index
        taken = {entry.repeat for entry in index.runs if entry.load == step.load}
        repeat = next(number for number in count(1) if number not in taken)
        again = f"_r{repeat}" if repeat > 1 else ""
        name = slug(f"{self.wanted.axis.by}={step.load:g}") + again
        seed = int.from_bytes(random_bytes(index.seed, b"search", index.begun, 8), "little") >> 1
        entry = Entry(id=name, load=step.load, repeat=repeat, why=step.why, seed=seed)
        index.begun += 1
        make_room(self.shelf.root / name)
        index.runs.append(entry)
        self._note()
        return entry

    def _asked(self, load: float, entry: Entry) -> Asked:
        """One point: its load and its length, and arrivals, lengths, order and prompts of its own."""
        flags = self.wanted.flags(self.asked.flags, load)
        flags |= {"seed": entry.seed, SET: {**(flags.get(SET) or {}), "run.seeds.salt": entry.seed}}
        quiet = self.asked.quiet or sys.stderr is None or not sys.stderr.isatty()
        return replace(self.asked, flags=flags, out=self.shelf.root / entry.id, launch=None, quiet=quiet)

    def _note(self) -> None:
        """The index with what follows from its runs."""
        index, step = self.index, self.next
        index.points = [asdict(point) for point in points_of(index.outcomes(), self.wanted.claim).values()]
        index.answer = asdict(step) if isinstance(step, Answer) else None
        index.economics = self._economics(step.load) if isinstance(step, Answer) else {}
        self.shelf.save(index)

    def _economics(self, load: float | None) -> dict[str, float | None]:
        """Of the answer's load, over its runs."""
        runs = [entry.figures for entry in self.index.runs if entry.load == load and entry.state == "counts"]
        goodput, tps = (_mean(runs, name) for name in ("goodput", "output_tps"))
        return economics(goodput, tps, self.wanted.gpus, self.wanted.price) if runs else {}

    def _leave_nothing_empty(self) -> None:
        """Where not one run was begun that left something, the folder goes too."""
        if any((self.shelf.root / entry.id).exists() for entry in self.index.runs):
            return
        self.index.runs.clear()
        with contextlib.suppress(OSError):
            for name in (SEARCH_JSON, LOCK):
                (self.shelf.root / name).unlink(missing_ok=True)
            self.shelf.root.rmdir()

    def _say(self, text: str) -> None:
        if not self.asked.quiet:
            aside(text)


def _mean(runs: list[dict[str, float | None]], name: str) -> float | None:
    values = [value for run in runs if (value := run.get(name)) is not None]
    return sum(values) / len(values) if values else None
