"""`--like RUN`: the efficiency of a saved run; what it does not know of GPU and model may be said now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from servemark.harness.errors import BadInput, BenchError
from servemark.harness.hardware.estimate_reached import Reached, reached
from servemark.harness.hardware.section import HardwareSection
from servemark.results.recover import LoadedRun
from servemark.results.reworked import reworked
from servemark.results.saved import open_run
from servemark.results.schema import part

_FIELDS = {"GPU": ("gpu", "gpu", "--like-gpu"), "model": ("model", "config", "--model")}
"""What it is -> its key in the run, that of what is said, and its flag."""


def reached_by(folder: str, model: str, gpu: str | None) -> Reached:
    """Where the run knows no model it is taken to be `model`, and its GPU `gpu`; its figures are worked out anew.

    Raises BadInput.
    """
    saved = open_run(folder)
    try:
        return reached(saved.run, str(saved.folder))
    except ValueError as error:
        said, why = _said(saved.run, {"GPU": gpu, "model": model}), str(error)
    try:
        if not said:
            raise ValueError(why)
        found = reached(_reworked(saved, said).run, str(saved.folder))
    except (BenchError, ValueError) as error:
        why = _unnamed(saved.run, said) or str(error).removesuffix(".")
        raise BadInput(f"--like {saved.folder}: {why}") from error
    taken = (f"its {what} was not known, and is taken to be {name} ({_FIELDS[what][2]})" for what, name in said.items())
    return replace(found, doubted=(*taken, *found.doubted))


def _said(run: Mapping[str, Any], said: Mapping[str, str | None]) -> dict[str, str]:
    """Of what is said, what the run does not know."""
    known = part(run, "hardware", "deployment")
    return {what: name for what, name in said.items() if name is not None and not known.get(_FIELDS[what][0])}


def _reworked(saved: LoadedRun, said: Mapping[str, str]) -> LoadedRun:
    return reworked(saved, HardwareSection.model_validate({_FIELDS[what][1]: name for what, name in said.items()}))


def _unnamed(run: Mapping[str, Any], said: Mapping[str, str]) -> str:
    if part(run, "hardware", "deployment").get("gpu") or "GPU" in said:
        return ""
    return (
        "the GPU that it ran on is not known, so its MBU and MFU are not; name it with --like-gpu (`bench list gpus`)"
    )
