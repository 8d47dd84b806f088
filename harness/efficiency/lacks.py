"""What is not known of a run's hardware, and why: a sentence each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from servemark.harness.efficiency.assessed import Assessed
from servemark.harness.efficiency.doubts import doubts
from servemark.harness.efficiency.shares import Share, databricks
from servemark.harness.efficiency.timeline import possible
from servemark.harness.figures.percent import share as percent


def lacks(run: Assessed, rows: Sequence[Share], reached: Mapping[str, Any] | None) -> Iterator[str]:
    """A sentence for each thing that is not known, and why."""
    deployment = run.deployment
    if deployment.model_lacks is not None:
        yield f"No modelled figures: {deployment.model_lacks}"
    if deployment.gpu_lacks is not None:
        yield f"No shares of a peak: {deployment.gpu_lacks}"
    if run.whole_run:
        yield "There is no steady window, as all requests came at once: these are figures of the whole run"
    if run.total is not None and run.steps is None:
        counts = run.grown("iterations") is not None
        why = "counted no step" if counts else "does not count its steps"
        yield f"No modelled MBU: the server {why}, and its answers did not come in pieces"
    if run.seen.unknown_prompts:
        yield f"{run.seen.unknown_prompts} requests whose prompt's length is not known are not modelled"
    form = databricks(run)
    if form is not None and possible(form) is None:
        yield (
            "No MBU in Databricks' form, which takes each token to read every parameter: it comes out as "
            f"{percent(form)}"
        )
    yield from doubts(run, rows, reached)
    yield from _unmeasured(run)
    if deployment.price_lacks is not None:
        yield f"No cost: {deployment.price_lacks}"


def _unmeasured(run: Assessed) -> Iterator[str]:
    read, gpus = len(run.serving), run.deployment.gpus
    if run.strangers:
        yield (
            "The GPUs that were read did nothing while answers came, so the server has others, and nothing here is "
            "measured: name its exporter with --gpu-metrics, or its GPUs with --gpu-index"
        )
        return
    if not read:
        when = " in the window" if run.gpu_samples else ""
        yield f"No GPU was read{when}: nothing here is measured"
        return
    if read < gpus:
        yield f"{read} of the {gpus} GPUs were read: no energy is told"
    if run.measured("dram_active") is None:
        some = any(each.levels.get("dram_active") or each.busy[:1] > (0.0,) for each in run.serving)
        why = "not all GPUs told it in most of the window" if some else "these GPUs do not tell their DRAM traffic"
        yield f"No measured MBU: {why}"
