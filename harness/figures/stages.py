"""The stages of a load whose rate goes in steps and ramps, each by itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from servemark.harness.figures.frame import Frame, Mask, Window
from servemark.harness.figures.groups import MAX_GROUPS
from servemark.harness.figures.metrics import METRICS
from servemark.harness.figures.slo import Slo
from servemark.harness.figures.summary import summarize
from servemark.harness.figures.view import Origin


def by_stage(
    frame: Frame,
    stages: Sequence[Window],
    window: Window,
    slo: Slo | None = None,
    *,
    origin: Origin = "intended",
) -> list[dict[str, Any]]:
    """`[{by: {stage: 1}, metrics}]` for each stage with requests that count, where there is more than one of them.

    At most 32, the largest. Rates are over the stage's own time, as far as it lies in `window`. Only its own requests
    count, but tokens of others that came in its time are what the server produced in it: these others are to it what
    a warm-up is to a run.
    """
    rows = {number: frame.measured & stage.holds(frame["intended_ns"]) for number, stage in enumerate(stages)}
    largest = sorted(rows, key=lambda number: -int(rows[number].sum()))[:MAX_GROUPS]
    found = []
    for number in sorted(number for number in largest if rows[number].any()):
        inside = _overlap(stages[number], window)
        metrics = summarize(_alone(frame, rows[number]), inside, slo, whole=inside, origin=origin, names=_NAMES)
        found.append({"by": {"stage": number}, "metrics": metrics})
    return found if len(found) > 1 else []


_NAMES = tuple(name for name, metric in METRICS.items() if metric.window != "run")
"""A stage has nothing to say of the whole run."""


def _alone(frame: Frame, rows: Mask) -> Frame:
    """The run as these rows see it: all others do not count."""
    phase = np.where(rows, "measured", "elsewhere").astype(np.object_)
    return replace(frame, columns={**frame.columns, "phase": phase})


def _overlap(stage: Window, window: Window) -> Window:
    start_ns = max(stage.start_ns, window.start_ns)
    return Window(start_ns, max(start_ns, min(stage.end_ns, window.end_ns)))
