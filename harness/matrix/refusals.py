"""What a matrix or a sweep refuses before anything is started."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence

from servemark.harness.errors import BadInput
from servemark.harness.hardware.deployed import refuse_senseless
from servemark.harness.launch.launching import HOST, launcher_of, refuse_missing
from servemark.harness.launch.words import settled
from servemark.harness.matrix.cells import Cell
from servemark.harness.matrix.plan import LoadedPlan
from servemark.harness.plan.spec import load_workload
from servemark.harness.prepare import refuse_unknown_codes, slo_of
from servemark.harness.server.address import build_headers
from servemark.harness.server.discovery import load_adapter
from servemark.results.curves import axis_of, is_load
from servemark.results.matrix import Entry, Shelf


def refuse(plan: LoadedPlan, cells: Sequence[Cell], headers: Mapping[str, str], until_missed: bool) -> None:
    """What would only be found out when its cell's turn comes."""
    refuse_unknown_codes(plan.spec.allow)
    for cell in once_each(cells):
        adapter = load_adapter(cell.engine.section.target)
        build_headers(cell.engine.section.api_key_env, headers)
        if cell.engine.words is not None:
            launcher_of(adapter)
    _refuse_hardware(plan)
    if until_missed and not any(is_load(axis_of(cell.load.own)) for cell in cells):
        raise BadInput("--until-missed is for a sweep over a load; give one, as --over rate=1..64x2")
    for cell in {(cell.workload, cell.load.label): cell for cell in cells}.values():
        if slo_of(load_workload(cell.workload, cell.load.flags)) is None and until_missed:
            raise BadInput("--until-missed needs objectives; give them with --slo, as --slo ttft=500ms,tpot=50ms")


def _refuse_hardware(plan: LoadedPlan) -> None:
    for place, section in enumerate(plan.spec.engines):
        try:
            refuse_senseless(section.hardware.from_folder(plan.folder), max(1, len(section.url)))
        except BadInput as error:
            if plan.kind == "sweep":  # of flags, which the sentence names
                raise
            raise BadInput(plan.where.line((("engines", place, "hardware"), str(error)))) from None


def once_each(cells: Iterable[Cell]) -> list[Cell]:
    """A cell of each engine."""
    return list({cell.engine.name: cell for cell in cells}.values())


def refuse_missing_programs(plan: LoadedPlan, cells: Iterable[Cell]) -> None:
    """TargetUnusable, before the first engine is started, where the program of a later one is not there."""
    for cell in once_each(cells):
        if cell.engine.words is not None:
            launcher = launcher_of(load_adapter(cell.engine.section.target))
            argv = launcher.command(settled(cell.engine.words, plan.folder), HOST, 1)
            refuse_missing(argv, {**launcher.environment, **os.environ, **cell.engine.section.env})


def refuse_changed(plan: LoadedPlan, shelf: Shelf, cells: Iterable[Cell], entries: Mapping[str, Entry]) -> None:
    """BadInput where a cell of this name was measured as something else."""
    changed = [cell.id for cell in cells if entries[cell.id].folder and entries[cell.id].digest != cell.digest]
    if changed and not entries[changed[0]].digest:
        raise BadInput(
            f"{shelf.folder(changed[0])}: holds a run, and {shelf.index_path}, which would say of what, does "
            "not know it; give another folder with --out, or move it away"
        )
    if changed:
        others = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        rename = "change the plan's name, " if plan.kind == "matrix" else ""
        raise BadInput(
            f"{plan.path}: {changed[0]}{others} has been measured with another engine, workload or load of this name; "
            f"{rename}give another folder with --out, or move {shelf.folder(changed[0])} away"
        )
