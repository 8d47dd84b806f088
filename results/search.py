"""The index of a search, `search.json` beside the folders of its runs: which were made, and what they came to.

It is written anew after each run, whole or not at all. A search that was stopped goes on from it: what is to be
measured next follows from the runs that are there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from servemark.harness.errors import BadInput
from servemark.harness.figures.slo import Slo
from servemark.harness.search.faults import Judged, judged
from servemark.harness.search.points import Outcome, Series
from servemark.harness.search.proportion import stretches
from servemark.harness.search.strain import clumping, strain
from servemark.results import schema
from servemark.results.asked_slo import slo_of_run
from servemark.results.index_file import against, now, read_index, said, write_index
from servemark.results.matrix import FIGURES
from servemark.results.unsteady import unsteady

if TYPE_CHECKING:
    from servemark.harness.figures.frame import Frame, Mask

SEARCH_JSON = "search.json"
SEARCH_PAGE = "search.html"

State = Literal["pending", "counts", "void", "stopped", "interrupted"]
"""`void`: the client was not up to it. `stopped`: INVALID for a reason that has nothing to do with the load."""


class Part(msgspec.Struct):
    """Requests of a run in order of intended time: so many good, so many bad, so many good, and so on."""

    stretches: list[int]
    clumping: float

    def series(self) -> Series:
        return Series(tuple(self.stretches), self.clumping)


class Entry(msgspec.Struct, kw_only=True):
    """One run. `requests` are those that the SLO has limits for, or all; `classes` those of each class that has any.

    `unsteady` says in a sentence each why its throughput is nothing to lean on; its requests count all the same.
    """

    id: str
    load: float
    repeat: int
    why: str
    seed: int
    state: State = "pending"
    held: bool = True
    reason: str = ""
    requests: Part = msgspec.field(default_factory=lambda: Part([], 1.0))
    classes: dict[str, Part] = msgspec.field(default_factory=dict)
    folder: str | None = None
    simulated: bool = False
    sessions: bool = False
    ended: str | None = None
    unsteady: list[str] = msgspec.field(default_factory=list)
    figures: dict[str, float | None] = msgspec.field(default_factory=dict)

    def outcome(self) -> Outcome:
        classes = {name: part.series() for name, part in self.classes.items()}
        return Outcome(self.load, self.requests.series(), self.held, self.state == "void", classes)


class Index(msgspec.Struct, kw_only=True):
    """`asked` are the search's own settings, `digest` stands for all that decides what is measured at a load."""

    schema_version: int = schema.SCHEMA_VERSION
    name: str
    digest: str
    seed: int
    created: str
    begun: int = 0
    """Runs that were begun, those that are not kept included: each has seeds of its own."""
    target: str = ""
    workload: dict[str, str] = msgspec.field(default_factory=dict)
    asked: dict[str, Any] = msgspec.field(default_factory=dict)
    runs: list[Entry] = msgspec.field(default_factory=list)
    points: list[dict[str, Any]] = msgspec.field(default_factory=list)
    answer: dict[str, Any] | None = None
    stopped: str = ""
    """Why there is no answer, where a run ended the search."""
    economics: dict[str, float | None] = msgspec.field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        found: dict[str, Any] = msgspec.to_builtins(self)
        return found

    def outcomes(self) -> list[Outcome]:
        return [entry.outcome() for entry in self.runs if entry.state in ("counts", "void")]


@dataclass(frozen=True, slots=True)
class SearchShelf:
    """The folder of a search."""

    root: Path

    def save(self, index: Index) -> None:
        """Raises ResultUnusable where it cannot be written."""
        write_index(self.root / SEARCH_JSON, index)

    def opened(self, fresh: Index, retry_invalid: bool = False) -> Index:
        """What an earlier start left, with today's settings; else the fresh one.

        Raises ResultUnusable for what is no index, BadInput where it is one of another search.
        """
        path = self.root / SEARCH_JSON
        if not path.exists():
            return fresh
        known = read_index(path, Index)
        if known.digest != fresh.digest:
            raise BadInput(
                f"{path}: holds a search with another target, workload or load; give another folder with --out, "
                "or move it away"
            )
        wanted = ("counts",) if retry_invalid else ("counts", "void")
        runs = [self._looked_at(entry) for entry in known.runs if entry.state != "interrupted"]
        kept = [entry for entry in runs if entry.state in wanted]
        return msgspec.structs.replace(fresh, seed=known.seed, created=known.created, begun=known.begun, runs=kept)

    def _looked_at(self, entry: Entry) -> Entry:
        """A run that was written counts, whatever the index had come to; one that is gone does not."""
        if not (self.root / entry.id / schema.RUN_JSON).is_file():
            return msgspec.structs.replace(entry, state="pending")
        return of_run(entry, self.root / entry.id) if entry.state == "pending" else entry


def of_run(entry: Entry, folder: Path) -> Entry:
    """The entry of a run that was written, read back from its folder."""
    from servemark.results.recover import load

    saved = load(folder)
    run, frame = saved.run, saved.frame()
    checks = against(run)
    found, slo = _judged(run, checks), slo_of_run(run) or Slo(())
    requests, classes = _parts(slo, frame)
    summary = schema.part(run, "summary")
    return msgspec.structs.replace(
        entry,
        state=_state(found, checks),
        held=found.held and _limits_held(run, slo),
        reason="; ".join(map(said, checks)),
        requests=requests,
        classes=classes,
        folder=entry.id,
        simulated=run.get("simulated") is True,
        sessions=bool((frame["turn"] > 0).any()),
        ended=now(),
        unsteady=unsteady(run),
        figures={name: schema.number(summary[name]) for name in FIGURES if name in summary},
    )


def _judged(run: Mapping[str, Any], checks: list[dict[str, Any]]) -> Judged:
    cap = schema.part(run, "workload", "resolved", "load").get("max_concurrency")
    failures = {name.removeprefix("failed_") for name in schema.part(run, "summary") if name.startswith("failed_")}
    return judged((str(check.get("code")) for check in checks), cap is not None, failures)


def _state(found: Judged, checks: list[dict[str, Any]]) -> State:
    if any(check.get("code") == "interrupted" for check in checks):
        return "interrupted"
    return "stopped" if found.state == "stop" else found.state


def _parts(slo: Slo, frame: Frame) -> tuple[Part, dict[str, Part]]:
    from servemark.harness.figures.view import view_of

    view = view_of(frame, slo=slo)
    meets, strained, judged = slo.meets(view), strain(slo, view), slo.judged(frame)
    rows = frame.measured & judged if judged.any() else frame.measured

    def part(which: Mask) -> Part:
        return Part(stretches(meets[which].astype(int).tolist()), clumping(strained[which]))

    limited = [name for name, own in slo.classes.items() if own.per_request]
    return part(rows), {name: part(rows & (frame["class_"] == name)) for name in limited}


def _limits_held(run: Mapping[str, Any], slo: Slo) -> bool:
    """Of the limits on a run, or on a class in it; those on a request are judged over all runs of a load together."""
    held = _held(schema.part(run, "slo"), slo)
    return held and all(_held(schema.part(run, "slo", "classes", name), own) for name, own in slo.classes.items())


def _held(said: Mapping[str, Any], slo: Slo) -> bool:
    on_the_run = {limit.text for limit in slo.limits if not limit.per_request}
    return all(each.get("met") is True for each in schema.items(said, "results") if each.get("limit") in on_the_run)
