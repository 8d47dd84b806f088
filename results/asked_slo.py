"""The SLO that a result was held to, read back from its run.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from servemark.harness.figures.slo import Slo, by_class, parse_slo
from servemark.results.schema import number, part


def slo_of_run(run: Mapping[str, Any]) -> Slo | None:
    """None where none was asked for. Raises TypeError or ValueError for what is no SLO: the file may be anybody's."""
    asked = part(run, "slo")
    top = _read(asked)
    classes = {str(name): _read(part(asked, "classes", name)) for name in part(asked, "classes")}
    found = by_class(top, classes)
    return found if found.every_limit else None


def _read(section: Mapping[str, Any]) -> Slo:
    limits, attainment = section.get("limits"), number(section.get("attainment"))
    return parse_slo(limits, attainment) if limits else Slo((), attainment)
