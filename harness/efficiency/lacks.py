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
        yield "No modelled MBU: the server does not count its steps, and its answers did not come in pieces"
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
    yield from _unmeasured(run)
    if deployment.price_lacks is not None:
        yield f"No cost: {deployment.price_lacks}"


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
    if not read:
        yield "No GPU was read: nothing here is measured"
        return
    if read < gpus:
        yield f"{read} of the {gpus} GPUs were read: no energy is told"
    if run.measured("dram_active") is None:
        yield "No measured MBU: these GPUs do not tell their DRAM traffic"
