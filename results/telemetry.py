"""What was read of the GPUs in the steady window, GPU by GPU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from servemark.harness.efficiency.assessed import Assessed
from servemark.harness.efficiency.measured import Watched


def telemetry(run: Assessed) -> dict[str, Any]:
    """The watch's own facts, and to each GPU the means and the highest of its readings in the window."""
    facts = dict(run.facts)
    known = [dict(each) for each in facts.get("gpus") or () if isinstance(each, Mapping)]
    named = {str(each.get("gpu")): each for each in known}
    serves = {each.gpu for each in run.serving}
    gpus = [named.get(each.gpu, {"gpu": each.gpu}) | _readings(each, each.gpu in serves) for each in run.watched]
    unread = [each for each in known if str(each.get("gpu")) not in {own.gpu for own in run.watched}]
    return {
        "source": facts.get("source"),
        "notes": [],
        "missing": {},
        **facts,
        "samples": len(run.gpu_samples),
        "gpus": [*gpus, *unread],
    }


def _readings(gpu: Watched, serves: bool) -> dict[str, Any]:
    return {
        "mean": {name: level.mean for name, level in gpu.levels.items()},
        "max": {name: level.largest for name, level in gpu.levels.items()},
        "energy_j": gpu.joules,
        "energy_source": gpu.energy_source,
        "throttled_share": gpu.throttled_share,
        "samples_in_window": gpu.samples,
        "counted": serves,
    }
