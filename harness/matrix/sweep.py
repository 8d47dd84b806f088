"""Makes the runs of a matrix, engine by engine, and goes on where an earlier start stopped.

A composition root: each cell is an ordinary run, made by `measure`.
"""

from __future__ import annotations

import contextlib
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

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
from servemark.harness.launch.launching import WAIT_S, Engine, Launch, launcher_of
from servemark.harness.matrix.cells import Cell, EngineUnderTest, cells_of
from servemark.harness.matrix.labels import slug
from servemark.harness.matrix.plan import LoadedPlan
from servemark.harness.measure import measure
from servemark.harness.plaintext import harmless
from servemark.harness.plan.spec import load_workload
from servemark.harness.prepare import Asked, credentials, refuse_unknown_codes, slo_of, started, without
from servemark.harness.server.address import build_headers
from servemark.harness.server.discovery import load_adapter
from servemark.results.matrix import MATRIX_JSON, Entry, Index, Shelf, now, of_run, open_shelf

# Where several apply, the first one that a cell has.
_WORST_FIRST = (EXIT_TARGET_UNUSABLE, EXIT_INVALID, EXIT_BAD_INPUT, EXIT_GATE_MISSED)


@dataclass(slots=True)
class Sweep:
    """A matrix under way. `entries` follow the cells."""

    plan: LoadedPlan
    shelf: Shelf
    cells: list[Cell]
    entries: dict[str, Entry]
    quiet: bool = False
    retry_invalid: bool = False
    interrupted: bool = False
    _created: str = field(default_factory=now)

    @property
    def index(self) -> Index:
        return Index(
            name=self.plan.name,
            about=self.plan.spec.about,
            plan={"path": self.plan.path, "text": self.plan.text},
            created=self.shelf.created or self._created,
            cells=[self.entries[cell.id] for cell in self.cells],
        )

    @property
    def to_do(self) -> list[Cell]:
        """Not measured yet, cut short, failed to start; INVALID ones where they are to be tried again."""
        done = {"valid"} if self.retry_invalid else {"valid", "invalid"}
        return [cell for cell in self.cells if self.entries[cell.id].state not in done]

    @property
    def exit_code(self) -> int:
        """3 where a target was unusable, else 4 where a run is INVALID or missing, else 2, 1 or 0."""
        codes = {EXIT_INVALID if entry.exit_code is None else entry.exit_code for entry in self.entries.values()}
        return next((code for code in _WORST_FIRST if code in codes), EXIT_OK)

    def carry_out(self) -> None:
        """Until all is done or a signal comes; what was measured by then is in the index."""
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
        while waiting:
            try:
                with self._running(waiting[0].engine) as engine:
                    self._measure(waiting.popleft(), engine)
                    while waiting and (engine is None or engine.process.end is None):
                        self._measure(waiting.popleft(), engine)
            except (BadInput, TargetUnusable) as error:
                self._say(f"{waiting[0].engine.name}: {error}")
                while waiting:
                    self._failed(waiting.popleft(), error)

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
        headers = build_headers(section.api_key_env, {})
        with without(credentials(headers)), started(adapter, launch, headers, self.quiet) as running:
            yield running

    def _measure(self, cell: Cell, engine: Engine | None) -> None:
        self._say(f"{self.cells.index(cell) + 1} of {len(self.cells)}  {cell.id}")
        folder = self.shelf.make_room(cell.id)
        self._note(_entry(cell))
        try:
            measured = measure(self._asked(cell, folder), engine)
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
        self.shelf.save(self.index)

    def _asked(self, cell: Cell, folder: Path) -> Asked:
        section = cell.engine.section
        return Asked(
            target=section.target,
            workload=cell.workload,
            urls=section.url,
            balance=section.balance,
            metrics_urls=section.metrics_url,
            model=section.model,
            flags=cell.load.flags,
            api_key_env=section.api_key_env,
            allow=self.plan.spec.allow,
            out=folder,
            wait_s=0.0 if section.wait is None else section.wait / SECOND,
            scrape_s=self.plan.spec.scrape / SECOND,
            tokenizer=Path(self.plan.folder, section.tokenizer) if section.tokenizer else None,
            cacert=section.cacert,
            insecure=section.insecure,
            quiet=self.quiet,
        )

    def _say(self, text: str) -> None:
        if not self.quiet and sys.stderr is not None:
            with contextlib.suppress(OSError):
                print(harmless(text), file=sys.stderr, flush=True)


def open_sweep(plan: LoadedPlan, out: Path | None, quiet: bool = False, retry_invalid: bool = False) -> Sweep:
    """The cells and what is known of them. Raises BadInput where the plan cannot be carried out as it stands."""
    cells = cells_of(plan)
    _refuse(plan, cells)
    shelf = open_shelf(out or Path("runs") / plan.name)
    entries = {cell.id: shelf.looked_at(_entry(cell)) for cell in cells}
    _refuse_changed(plan, shelf, cells, entries)
    return Sweep(plan, shelf, cells, entries, quiet, retry_invalid)


def _refuse(plan: LoadedPlan, cells: Iterable[Cell]) -> None:
    """What would only be found out when its cell's turn comes."""
    refuse_unknown_codes(plan.spec.allow)
    for cell in cells:
        adapter = load_adapter(cell.engine.section.target)
        if cell.engine.words is not None:
            launcher_of(adapter)
    for cell in {(cell.workload, cell.load.label): cell for cell in cells}.values():
        slo_of(load_workload(cell.workload, cell.load.flags))


def _refuse_changed(plan: LoadedPlan, shelf: Shelf, cells: Iterable[Cell], entries: dict[str, Entry]) -> None:
    changed = [cell.id for cell in cells if entries[cell.id].folder and entries[cell.id].digest != cell.digest]
    if changed and not entries[changed[0]].digest:
        raise BadInput(
            f"{shelf.folder(changed[0])}: holds a run, and {shelf.root / MATRIX_JSON}, which would say of what, does "
            "not know it; give another folder with --out, or move it away"
        )
    if changed:
        others = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        raise BadInput(
            f"{plan.path}: {changed[0]}{others} has been measured with another engine, workload or load of this name; "
            f"change the plan's name, give another folder with --out, or move {shelf.folder(changed[0])} away"
        )


def _entry(cell: Cell) -> Entry:
    return Entry(
        id=cell.id,
        engine=cell.engine.name,
        workload=cell.workload_name,
        load=cell.load.label,
        repeat=cell.repeat,
        digest=cell.digest,
    )
