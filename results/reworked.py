"""A saved run with the figures of its hardware worked out anew: another price, or a GPU or model that nobody named."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from servemark.harness.errors import ResultUnusable
from servemark.harness.figures.frame import Frame, Window
from servemark.harness.hardware.deployed import Deployed, deployed
from servemark.harness.hardware.section import HardwareSection
from servemark.harness.hardware.told import told
from servemark.harness.server.samples import whole
from servemark.results.hardware import hardware_part
from servemark.results.headline import hardware_summary
from servemark.results.recover import LoadedRun
from servemark.results.schema import items, number, part, text

_INSTEAD = {"prices": "gpu_price", "tp": "gpus", "pp": "gpus", "dp": "gpus"}
"""What is said anew -> what was said before and would go over it, or against it."""


def reworked(saved: LoadedRun, section: HardwareSection) -> LoadedRun:
    """Nothing is written. Raises BadInput where the section makes no sense, ResultUnusable where the run does not."""
    run, frame = saved.run, saved.frame()
    clients = number(part(run, "workload", "resolved", "load").get("concurrency"))
    started = part(run, "clock").get("started_ns")
    try:
        found = hardware_part(
            frame,
            _window(run, frame),
            whole(saved.server_samples()),
            saved.gpu_samples(),
            {**part(run, "hardware", "telemetry"), "gpus": items(run, "hardware", "telemetry", "gpus")},
            _made_on(run, section),
            {name: each for name, each in part(run, "metrics").items() if isinstance(each, dict)},
            items(run, "verdict", "checks"),
            None if clients is None else int(clients),
            started if isinstance(started, int) else None,
        )
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:  # the file may be anybody's
        raise ResultUnusable(f"{saved.folder}: its hardware's figures cannot be worked out ({error})") from error
    before = hardware_summary(part(run, "hardware"), 1.0)
    summary = {name: value for name, value in part(run, "summary").items() if name not in before}
    summary |= hardware_summary(found, number(summary.get("output_tps")))
    return replace(saved, run={**run, "hardware": found, "summary": summary})


def _window(run: Mapping[str, Any], frame: Frame) -> Window:
    edges = part(run, "clock").get("window_ns")
    if isinstance(edges, list) and len(edges) == 2 and all(isinstance(edge, int) for edge in edges):
        return Window(*edges)
    return frame.steady_window()


def _made_on(run: Mapping[str, Any], section: HardwareSection) -> Deployed:
    """As when it was made, but for what the section says."""
    target = part(run, "target")
    try:
        words = shlex.split(text(part(target, "launch").get("command")))
    except ValueError:
        words = []
    servers = max(1, len(items(target, "replicas")))
    said = section.model_dump(mode="json", exclude_defaults=True)
    kept = {name: value for name, value in part(run, "hardware", "deployment", "asked").items() if name not in said}
    for anew, old in _INSTEAD.items():
        if anew in said:
            kept.pop(old, None)
    try:
        section = HardwareSection.model_validate(kept | said)
    except ValidationError as error:
        raise ResultUnusable("what was asked of its hardware makes no sense; give it anew") from error
    return deployed(section, told(part(target, "settings"), words, text(target.get("model"))), servers)
