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
            part(run, "hardware", "telemetry"),
            _made_on(run, section),
            part(run, "metrics"),
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
    asked = part(run, "hardware", "deployment", "asked") | section.model_dump(mode="json", exclude_defaults=True)
    try:
        section = HardwareSection.model_validate(asked)
    except ValidationError as error:
        raise ResultUnusable("what was asked of its hardware makes no sense; give it anew") from error
    return deployed(section, told(part(target, "settings"), words, text(target.get("model"))), servers)
