"""From what a run recorded to what its result says: figures, objectives, verdict."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from servemark.harness.figures.frame import Frame, Window
from servemark.harness.figures.groups import groups
from servemark.harness.figures.objectives import weigh
from servemark.harness.figures.slo import Slo
from servemark.harness.figures.stages import by_stage
from servemark.harness.figures.summary import summarize
from servemark.harness.figures.view import Origin
from servemark.harness.types import ServerSample
from servemark.harness.verdict.validity import Evidence, judge
from servemark.results.headline import gave_up, latencies_of_both, server_part, summary


def evaluate(
    evidence: Evidence, gate: bool, allow: Iterable[str] = (), samples: Sequence[ServerSample] | None = None
) -> dict[str, Any]:
    """The judged part of run.json; `evidence` comes without metrics. ValueError for an unknown code in `allow`.

    `samples` are those of each replica too, where there are several.
    """
    told = evidence.server if samples is None else samples
    figures = measured(evidence.frame, told, evidence.slo, evidence.window, evidence.origin, evidence.stages)
    evidence = replace(evidence, metrics=figures["metrics"])
    verdict = judge(evidence, allow)
    cache = evidence.cache.facts() | evidence.hits.facts()
    return {**figures, "cache": cache, "slo": objectives(evidence, gate), "verdict": verdict.to_json()}


def measured(
    frame: Frame,
    samples: Sequence[ServerSample],
    slo: Slo | None,
    window: Window | None = None,
    origin: Origin = "intended",
    stages: Sequence[Window] = (),
) -> dict[str, Any]:
    """The figures alone, as for a run that never ended and has no verdict of its own."""
    window = window or frame.steady_window()
    metrics = summarize(frame, window, slo, origin=origin)
    apart = by_stage(frame, stages, window, slo, origin=origin)
    return {
        "summary": summary(frame, metrics),
        "metrics": metrics,
        "groups": [*apart, *groups(frame, window, slo, origin=origin)],
        "server": server_part(samples) | latencies_of_both(frame, samples) | gave_up(frame, samples),
    }


def objectives(evidence: Evidence, gate: bool) -> dict[str, Any]:
    """`met` is null where no limit was asked for."""
    if evidence.slo is None:
        return {"limits": [], "gate": gate, "met": None, "results": []}
    result = weigh(evidence.slo, evidence.view).to_json()
    asked = [limit.text for limit in evidence.slo.limits]
    for name, own in result.get("classes", {}).items():
        own |= {"results": own["limits"], "limits": [limit.text for limit in evidence.slo.classes[name].limits]}
    return {**result, "limits": asked, "gate": gate, "results": result["limits"]}
