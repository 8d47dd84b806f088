"""What is not known of a run's hardware, and why: a sentence each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from servemark.harness.efficiency.assessed import Assessed
from servemark.harness.efficiency.shares import Share, databricks
from servemark.harness.efficiency.timeline import possible
from servemark.harness.errors import BadInput
from servemark.harness.hardware.devices import recognise
from servemark.harness.plaintext import one_line

GB = 1e9


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
    yield from (row.note for row in rows if row.value is None)
    form = databricks(run)
    if form is not None and possible(form) is None:
        yield f"No MBU in Databricks' form, which takes each token to read every parameter: it comes out as {form:.0%}"
    yield from (
        str(each["note"]) for each in (reached or {}).values() if isinstance(each, Mapping) and each.get("note")
    )
    yield from _mistaken(run)
    yield from _too_large(run)
    yield from _unmeasured(run)
    if deployment.price_lacks is not None:
        yield f"No cost: {deployment.price_lacks}"


def _too_large(run: Assessed) -> Iterator[str]:
    gpu, arithmetic = run.deployment.gpu, run.deployment.arithmetic
    if gpu is not None and arithmetic is not None and arithmetic.resident_bytes > gpu.memory_gb * GB:
        yield (
            f"{arithmetic.resident_bytes / GB:,.1f} GB of weights a GPU do not fit into the {gpu.memory_gb:g} GB of "
            f"{gpu.name}: the GPU, how many there are, the model or its format is not as it was named"
        )


def _mistaken(run: Assessed) -> Iterator[str]:
    """The GPU that was named is not the one that was read."""
    named = run.deployment.gpu
    for each in run.facts.get("gpus") or ():
        if named is None or not isinstance(each, Mapping):
            continue
        name, size = str(each.get("name") or ""), each.get("memory_bytes")
        files = tuple(map(Path, run.deployment.section.gpu_file))
        try:
            read = recognise(name, size if isinstance(size, int) else None, files)
        except BadInput:  # a file that was there when the run began has changed; the run goes before it
            return
        if read is not None and read.name != named.name:
            yield f"The GPU that was named is {named.name}, the one that was read is {read.name} ({one_line(name, 60)})"


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
