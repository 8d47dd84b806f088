"""Makes the runs of a matrix or a sweep, engine by engine, and goes on where an earlier start stopped.

A composition root: each cell is an ordinary run, made by `measure`.
"""

from __future__ import annotations

import contextlib
import secrets
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from pathlib import Path

from servemark.dashboards.aside import aside
from servemark.harness.clock import SECOND
from servemark.harness.errors import (
    EXIT_BAD_INPUT,
    EXIT_GATE_MISSED,
    EXIT_INVALID,
    EXIT_OK,
    EXIT_TARGET_UNUSABLE,
    BadInput,
    BenchError,
    TargetUnusable,
)
from servemark.harness.interrupts import Interrupts
from servemark.harness.launch.launching import WAIT_S, Engine, Launch
from servemark.harness.matrix.cells import Cell, EngineUnderTest, cells_of
from servemark.harness.matrix.forewarned import few_requests
from servemark.harness.matrix.labels import slug
from servemark.harness.matrix.plan import LoadedPlan
from servemark.harness.matrix.refusals import refuse, refuse_changed, refuse_missing_programs
from servemark.harness.matrix.rest import rested, standing
from servemark.harness.measure import measure
from servemark.harness.plan.overrides import SET
from servemark.harness.prepare import Asked, credentials, started, without
from servemark.harness.server.address import build_headers
from servemark.harness.server.discovery import load_adapter
from servemark.harness.server.scrape import Access
from servemark.results.curves import knees, too_high
from servemark.results.index_file import now
from servemark.results.matrix import Entry, Index, Shelf, of_run, open_shelf

# Where several apply, the first one that a cell has.
_WORST_FIRST = (EXIT_TARGET_UNUSABLE, EXIT_INVALID, EXIT_BAD_INPUT, EXIT_GATE_MISSED)


@dataclass(slots=True)
class Sweep:
    """A matrix or a sweep under way. `entries` follow the cells; `headers` may be secret and go into no index."""

    plan: LoadedPlan
    shelf: Shelf
    cells: list[Cell]
    entries: dict[str, Entry]
    headers: Mapping[str, str]
    quiet: bool = False
    retry_invalid: bool = False
    until_missed: bool = False
    interrupted: bool = False
    _created: str = field(default_factory=now)
    _salt: int = field(default_factory=partial(secrets.randbits, 62))

    @property
    def salt(self) -> int:
        return self._salt if self.shelf.salt is None else self.shelf.salt

    @property
    def index(self) -> Index:
        entries = [self.entries[cell.id] for cell in self.cells]
        return Index(
            kind=self.plan.kind,
            name=self.plan.name,
            about=self.plan.spec.about,
            plan={"path": self.plan.path, "text": self.plan.text},
            created=self.shelf.created or self._created,
            salt=self.salt,
            cells=entries,
            knees=knees(entry.to_json() for entry in entries),
        )

    @property
    def to_do(self) -> list[Cell]:
        """Not measured yet, cut short, failed to start; INVALID ones where they are to be tried again."""
        done = {"valid", "skipped"} if self.retry_invalid else {"valid", "skipped", "invalid"}
        return [cell for cell in self.cells if self.entries[cell.id].state not in done]

    @property
    def exit_code(self) -> int:
        """3 where a target was unusable, else 4 where a run is INVALID or missing, else 2, 1 or 0."""
        codes = {EXIT_INVALID if entry.exit_code is None else entry.exit_code for entry in self.entries.values()}
        return next((code for code in _WORST_FIRST if code in codes), EXIT_OK)

    def carry_out(self) -> None:
        """Until all is done or a signal comes; what was measured by then is in the index."""
        refuse_missing_programs(self.plan, self.to_do)
        if before := len(self.cells) - len(self.to_do):
            said = f"{before} of {len(self.cells)} runs were made before and stand as they are"
            self._say(f"{said}; to make them anew, give another folder with --out")
        if few := few_requests(self.to_do):
            self._say(few)
        with self.shelf.held(), Interrupts():
            self.shelf.save(self.index)
            try:
                for _, cells in groupby(self.to_do, key=lambda cell: cell.engine.name):
                    self._on_engine(list(cells))
            except KeyboardInterrupt:
                self.interrupted = True
            finally:
                self.shelf.save(self.index)

    def _on_engine(self, cells: list[Cell]) -> None:
        """One that died is started again for the cells that are left, if it came to a cell at all."""
        waiting = deque(cells)
        while self._wanted(waiting):
            try:
                with self._running(waiting[0].engine) as engine:
                    self._measure(waiting.popleft(), engine)
                    while self._wanted(waiting) and (engine is None or engine.process.end is None):
                        self._rest(waiting[0].engine, engine)
                        self._measure(waiting.popleft(), engine)
            except (BadInput, TargetUnusable) as error:
                self._say(f"{waiting[0].engine.name}: {error}")
                while waiting:
                    self._failed(waiting.popleft(), error)

    def _wanted(self, waiting: deque[Cell]) -> bool:
        """Whether a cell is left, when those are gone that lower loads have made needless."""
        while waiting and self.entries[waiting[0].id].state == "skipped":
            waiting.popleft()
        return bool(waiting)

    def _rest(self, engine: EngineUnderTest, running: Engine | None) -> None:
        """No run is to meet what the one before has left at work."""
        section, adapter = engine.section, load_adapter(engine.section.target)
        servers = standing(adapter, section.url, running)
        headers = build_headers(section.api_key_env, self.headers)
        access = Access(servers, headers, section.cacert, section.insecure)
        if said := rested(adapter, access, section.metrics_url, self.plan.spec.cool_down / SECOND):
            self._say(f"{engine.name}: {said}; going on all the same")

    @contextlib.contextmanager
    def _running(self, engine: EngineUnderTest) -> Iterator[Engine | None]:
        """None where it is not started here."""
        if engine.words is None:
            yield None
            return
        section, adapter = engine.section, load_adapter(engine.section.target)
        self._say(f"launching {engine.name}")
        launch = Launch(
            engine.words,
            folder=self.plan.folder,
            environment=section.env,
            wait_s=WAIT_S if section.wait is None else section.wait / SECOND,
            log=self.shelf.root / f"{slug(engine.name)}.start.log",
        )
        headers = build_headers(section.api_key_env, self.headers)
        with without(credentials(headers)), started(adapter, launch, headers, self.quiet) as running:
            yield running

    def _measure(self, cell: Cell, engine: Engine | None) -> None:
        self._say(f"{self.cells.index(cell) + 1} of {len(self.cells)}  {cell.id}")
        folder, tries = self.shelf.make_room(cell.id)
        self._note(_entry(cell))
        try:
            measured = measure(self._asked(cell, folder, tries), engine)
        except (BadInput, TargetUnusable) as error:
            self._say(str(error))
            self._failed(cell, error)
            return
        self._note(of_run(_entry(cell), measured.run))
        if measured.run["worker"].get("stop_reason") == "interrupted":
            raise KeyboardInterrupt

    def _failed(self, cell: Cell, error: BenchError) -> None:
        entry = _entry(cell)
        entry.state, entry.exit_code, entry.reason, entry.ended = "failed", error.exit_code, str(error), now()
        self._note(entry)

    def _note(self, entry: Entry) -> None:
        self.entries[entry.id] = entry
        self.skip()
        self.shelf.save(self.index)

    def skip(self) -> None:
        """With `until_missed`, the loads above two that miss the SLO."""
        for name in too_high(entry.to_json() for entry in self.entries.values()) if self.until_missed else ():
            if self.entries[name].state == "pending":
                self.entries[name].state, self.entries[name].exit_code = "skipped", EXIT_OK

    def _asked(self, cell: Cell, folder: Path, tries: int) -> Asked:
        section = cell.engine.section
        salt = cell.salted(self.salt if cell.salt is None else cell.salt, tries)
        flags = {**cell.load.flags, SET: {**cell.load.flags.get(SET, {}), "run.seeds.salt": salt}}
        return Asked(
            target=section.target,
            workload=cell.workload,
            urls=section.url,
            balance=section.balance,
            metrics_urls=section.metrics_url,
            model=section.model,
            flags={**flags, "headers": dict(self.headers)} if self.headers else flags,
            api_key_env=section.api_key_env,
            allow=self.plan.spec.allow,
            out=folder,
            wait_s=0.0 if section.wait is None else section.wait / SECOND,
            scrape_s=self.plan.spec.scrape / SECOND,
            tokenizer=Path(self.plan.folder, section.tokenizer) if section.tokenizer else None,
            cacert=section.cacert,
            insecure=section.insecure,
            quiet=self.quiet,
            hardware=section.hardware.from_folder(self.plan.folder),
        )

    def _say(self, text: str) -> None:
        if not self.quiet:
            aside(text)


def open_sweep(
    plan: LoadedPlan,
    out: Path | None,
    quiet: bool = False,
    retry_invalid: bool = False,
    until_missed: bool = False,
    headers: Mapping[str, str] | None = None,
) -> Sweep:
    """The cells and what is known of them. Raises BadInput where the plan cannot be carried out as it stands."""
    cells = cells_of(plan)
    refuse(plan, cells, headers or {}, until_missed)
    shelf = open_shelf(out or Path("runs") / plan.name, plan.kind)
    entries = {cell.id: shelf.looked_at(_entry(cell)) for cell in cells}
    refuse_changed(plan, shelf, cells, entries)
    sweep = Sweep(plan, shelf, cells, entries, headers or {}, quiet, retry_invalid, until_missed)
    sweep.skip()
    return sweep


def _entry(cell: Cell) -> Entry:
    return Entry(
        id=cell.id,
        engine=cell.engine.name,
        workload=cell.workload_name,
        load=cell.load.label,
        repeat=cell.repeat,
        digest=cell.digest,
        settings=dict(cell.load.own),
    )
