"""The index of a matrix or a sweep, `matrix.json` or `sweep.json` beside the folders of its runs: what became of each.

It is written anew after each cell, whole or not at all, so a matrix that was killed goes on from it. What a cell's run
says stands in its own run.json.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import msgspec

from servemark.results import schema
from servemark.results.headline import HARDWARE_FIGURES
from servemark.results.index_file import against, held, make_room, now, read_index, said, write_index
from servemark.results.unsteady import FIGURES as UNSTEADY
from servemark.results.unsteady import unsteady

Kind = Literal["matrix", "sweep"]
State = Literal["pending", "valid", "invalid", "interrupted", "failed", "skipped"]
"""`failed`: there is no run, as the engine did not start. `skipped`: lower loads had missed the SLO already."""

FIGURES = (
    "requests_measured",
    "requests_measured_ok",
    "output_tps",
    "input_tps",
    "rps",
    "goodput",
    "goodput_share",
    "ttft_p50_ms",
    "ttft_p99_ms",
    "itl_p50_ms",
    "itl_p99_ms",
    "tpot_p50_ms",
    "tpot_p99_ms",
    "e2e_p50_ms",
    "e2e_p99_ms",
    *HARDWARE_FIGURES,
)
"""Of a run's summary, copied into the index."""
_BESIDE = {"e2e_mean_ms": ("e2e", "mean"), "tps_user_p50": ("tps_user", "p50")}
_PERCENTILE = re.compile(r"(.+)_(p[0-9_]+)_ms")

TOO_MUCH = frozenset({"overloaded", "error_share"})
"""Checks by which a run says that the load was more than the server could take."""


class Entry(msgspec.Struct, kw_only=True):
    """One cell. `folder` is relative to the index; `reason` says in a sentence why there is no VALID run.

    `settings` are the load's own flags and fields; `codes` are the checks that make the run INVALID; `unsteady` says in
    a sentence each why the throughput of a VALID run is nothing to lean on, and `uncertain` names the figures that this
    concerns, and the percentiles that its sample does not certify.
    """

    id: str
    engine: str
    workload: str
    load: str
    repeat: int
    digest: str
    state: State = "pending"
    exit_code: int | None = None
    reason: str | None = None
    folder: str | None = None
    simulated: bool = False
    ended: str | None = None
    settings: dict[str, Any] = msgspec.field(default_factory=dict)
    codes: list[str] = msgspec.field(default_factory=list)
    slo_met: bool | None = None
    unsteady: list[str] = msgspec.field(default_factory=list)
    uncertain: list[str] = msgspec.field(default_factory=list)
    figures: dict[str, float | None] = msgspec.field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        found: dict[str, Any] = msgspec.to_builtins(self)
        return found


class Index(msgspec.Struct, kw_only=True):
    """All cells in the plan's order. `salt` goes into that of each cell's prompts."""

    schema_version: int = schema.SCHEMA_VERSION
    kind: Kind = "matrix"
    name: str
    about: str = ""
    plan: dict[str, str] = msgspec.field(default_factory=dict)
    created: str = ""
    salt: int | None = None
    cells: list[Entry] = msgspec.field(default_factory=list)
    knees: list[dict[str, Any]] = msgspec.field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        found: dict[str, Any] = msgspec.to_builtins(self)
        return found


@dataclass(frozen=True, slots=True)
class Shelf:
    """The folder of a matrix or a sweep: its index, and a folder for each cell's run."""

    root: Path
    kind: Kind = "matrix"
    known: Mapping[str, Entry] = field(default_factory=dict)
    created: str = ""
    salt: int | None = None

    @property
    def index_path(self) -> Path:
        return self.root / f"{self.kind}.json"

    @property
    def page_path(self) -> Path:
        return self.root / f"{self.kind}.html"

    def folder(self, cell: str) -> Path:
        return self.root / cell

    def looked_at(self, entry: Entry) -> Entry:
        """The entry with what its folder says: a run that was written counts, whatever the index had come to."""
        run = self._run(entry.id)
        if run is None:
            before = self.known.get(entry.id)
            if before is not None and before.state == "failed" and before.digest == entry.digest:
                return before
            return entry
        before = self.known.get(entry.id)
        entry = msgspec.structs.replace(entry, digest=before.digest if before else "")
        return of_run(entry, run, before.ended if before else None)

    def _run(self, cell: str) -> dict[str, Any] | None:
        from servemark.results.recover import load

        if not (self.folder(cell) / schema.RUN_JSON).is_file():
            return None
        return load(self.folder(cell)).run

    def make_room(self, cell: str) -> tuple[Path, int]:
        """The cell's folder, free, and how many tries went before: what they left is moved aside and kept."""
        return self.folder(cell), make_room(self.folder(cell))

    def save(self, index: Index) -> None:
        """Raises ResultUnusable where it cannot be written."""
        write_index(self.index_path, index)

    def held(self) -> contextlib.AbstractContextManager[None]:
        """BadInput where another one is at work in this folder."""
        return held(self.root, f"bench {self.kind}")


def of_run(entry: Entry, run: Mapping[str, Any], ended: str | None = None) -> Entry:
    """The entry of a cell whose run was written."""
    summary, checks = schema.part(run, "summary"), against(run)
    valid = schema.part(run, "verdict").get("valid") is True
    interrupted = any(check.get("code") == "interrupted" for check in checks)
    slo = schema.part(run, "slo")
    missed = bool(slo.get("gate")) and slo.get("met") is False
    shaky = unsteady(run) if valid else []
    return msgspec.structs.replace(
        entry,
        state="valid" if valid else "interrupted" if interrupted else "invalid",
        exit_code=(1 if missed else 0) if valid else 4,
        reason=None if valid else "; ".join(map(said, checks)) or "the run gives no verdict",
        folder=entry.id,
        simulated=run.get("simulated") is True,
        ended=ended or now(),
        codes=[schema.text(check.get("code"), 60) for check in checks],
        slo_met=slo["met"] if isinstance(slo.get("met"), bool) else None,
        unsteady=shaky,
        uncertain=[*_uncertain(run), *(name for name in UNSTEADY if shaky and name in summary)],
        figures={name: schema.number(summary[name]) for name in FIGURES if name in summary}
        | {
            name: schema.number(schema.part(run, "metrics", metric).get(key)) for name, (metric, key) in _BESIDE.items()
        },
    )


def _uncertain(run: Mapping[str, Any]) -> list[str]:
    """The percentiles for which there were too few requests; a median always counts as certain."""
    found = []
    for name in FIGURES:
        if (parts := _PERCENTILE.fullmatch(name)) is not None and parts[2] != "p50":
            certified = schema.part(run, "metrics", parts[1]).get("certified")
            if isinstance(certified, list) and parts[2] not in certified:
                found.append(name)
    return found


def open_shelf(root: Path, kind: Kind = "matrix") -> Shelf:
    """What is known of an earlier start in this folder. Raises ResultUnusable where its index makes no sense."""
    path = Shelf(root, kind).index_path
    if not path.exists():
        return Shelf(root, kind)
    index = read_index(path, Index)
    return Shelf(root, kind, {entry.id: entry for entry in index.cells}, index.created, index.salt)
