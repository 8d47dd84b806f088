"""The parts of run.json that say what was run, where, and when."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from servemark.harness.clock import SECOND
from servemark.harness.plan.arrivals import Load
from servemark.harness.plan.replay import time_notes
from servemark.harness.plan.schedule import Schedule
from servemark.harness.plan.spec import Loaded
from servemark.harness.server.target import Replica, Target
from servemark.harness.types import Endpoint, WorkerReport
from servemark.results.host import host_facts, versions
from servemark.results.schema import ENGINE_LOG

if TYPE_CHECKING:
    from servemark.harness.figures.frame import Frame, Window


def known_at_start(loaded: Loaded, schedule: Schedule, target: Target, endpoint: Endpoint) -> dict[str, Any]:
    """All that is known before the first request."""
    return {
        "simulated": target.simulated,
        "slo": slo_part(loaded),
        "workload": {
            "name": loaded.name,
            "path": loaded.path,
            "text": loaded.text,
            "overrides": _plain(loaded.overrides),
            "resolved": loaded.dump(),
        },
        "schedule": scheduled(loaded, schedule),
        "target": _target(target, endpoint),
        "host": host_facts(),
        "versions": versions(),
    }


def slo_part(loaded: Loaded) -> dict[str, Any]:
    """As it stands in the workload."""
    section, classes = loaded.spec.slo, loaded.spec.classes or {}
    asked = {"limits": list(section.limits), "attainment": section.attainment, "gate": section.gate}
    own = {name: each.slo.model_dump(mode="json") if each.slo else {} for name, each in classes.items()}
    return asked | ({"classes": own} if own else {})


def scheduled(loaded: Loaded, schedule: Schedule) -> dict[str, Any]:
    """What was planned; the counts are final when the run is over."""
    vocabulary = schedule.vocabulary
    return {
        "seeds": asdict(schedule.seeds),
        "data_digest": schedule.source.data_digest,
        "notes": [*schedule.source.notes, *time_notes(loaded.spec, schedule.source)],
        "nominal_rate": loaded.spec.load.mean_rate,
        "stages": list(loaded.spec.load.course()),
        "planned_in_window": schedule.planned_in_window,
        "raised_prompts": schedule.raised_prompts,
        "vocabulary": {"origin": vocabulary.origin, "exact": vocabulary.exact, "note": vocabulary.note},
    }


def clock_part(frame: Frame, window: Window, report: WorkerReport | None) -> dict[str, Any]:
    """When it was, on the monotonic clock of all stamps and on the wall clock."""
    whole, stamps = frame.whole_window(), sorted(set(frame["stamp"].tolist()))
    started = datetime.fromtimestamp(report.started_wall_ns / SECOND, UTC) if report else None
    return {
        "started_ns": report.started_ns if report else None,
        "started_wall": started.isoformat(timespec="milliseconds") if started else None,
        "window_ns": [window.start_ns, window.end_ns],
        "whole_ns": [whole.start_ns, whole.end_ns],
        "stamp": " and ".join(stamps) or None,
    }


def stage_windows(load: Load, report: WorkerReport | None) -> tuple[Window, ...]:
    """When the stages of a load were to begin and to end, on the monotonic clock; none where it has none."""
    from servemark.harness.figures.frame import Window

    if report is None:
        return ()
    edges = ((round(each[name] * SECOND) for name in ("start_s", "end_s")) for each in load.course())
    return tuple(Window(*(report.started_ns + edge_ns for edge_ns in pair)) for pair in edges)


def _target(target: Target, endpoint: Endpoint) -> dict[str, Any]:
    adapter, facts = target.adapter, target.facts
    return {
        "name": adapter.name,
        "url": target.url,
        "engine": facts.engine,
        "version": facts.version,
        "model": target.model,
        "context_tokens": facts.context_tokens,
        "settings": dict(facts.settings),
        "endpoint": endpoint,
        "promises": asdict(adapter.promises(endpoint)),
        "simulated": target.simulated,
        "balance": target.balance if target.others else None,
        "replicas": [_replica(each) for each in target.replicas] if target.others else [],
        "launch": {**target.engine.facts(), "log": ENGINE_LOG} if target.engine is not None else None,
    }


def _replica(replica: Replica) -> dict[str, Any]:
    facts = replica.facts
    return {"url": replica.url, "engine": facts.engine, "version": facts.version, "settings": dict(facts.settings)}


def _plain(overrides: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value if isinstance(value, int | float | dict) else str(value) for name, value in overrides.items()}
