"""Signs that the GPU, how many there are, the model or its format is not what was named: a sentence each."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from servemark.harness.efficiency.assessed import Assessed
from servemark.harness.efficiency.seen import tokens_of_chunks
from servemark.harness.efficiency.shares import Share
from servemark.harness.efficiency.thresholds import THRESHOLDS
from servemark.harness.errors import BadInput
from servemark.harness.figures.percent import share as percent
from servemark.harness.hardware.devices import recognise
from servemark.harness.hardware.limits import GB, tpot_floor
from servemark.harness.plaintext import one_line

APART = 1.5
"""Times by which two counts of the same differ, beyond which one of them is of something else."""
NAMES = "the GPU, its number, the model or its format is not as named"
_SHOWN = 2
# "70B" and "8x7B", but neither "A3B" (active), "E4B" (effective) nor "4bit".
_SIZE = re.compile(r"(?<![0-9a-z.])(?:([0-9]{1,3})x)?([0-9]{1,4}(?:\.[0-9]{1,3})?)b(?![0-9a-z])")


def doubts(run: Assessed, rows: Sequence[Share], reached: Mapping[str, Any] | None) -> list[str]:
    """The surest first. `reached` are the limits; what was told twice stands once."""
    notes = (each.get("note") for each in (reached or {}).values() if isinstance(each, Mapping))
    found = (
        *(list(_impossible(rows)) or _faster_than_weights(run)),
        *_mistaken(run),
        *_too_large(run),
        *_other_size(run),
        *_apart(rows),
        *(str(note) for note in notes if note),
    )
    return list(dict.fromkeys(found))


def _impossible(rows: Sequence[Share]) -> Iterator[str]:
    """Shares that cannot be, those for the same reason in one sentence."""
    whys: dict[str, list[str]] = {}
    for row in rows:
        if row.value is None:
            figure, _, why = row.note.partition(": ")
            whys.setdefault(why, []).append(figure)
    yield from (f"{' and '.join(figures[:_SHOWN])}: {why}" for why, figures in whys.items())


def believed(run: Assessed, rows: Sequence[Share]) -> Assessed:
    """Without the model, on which all that is modelled rests, where a figure that rests on it cannot be."""
    wrong = any(row.value is None and row.how == "modelled" for row in rows) or any(_faster_than_weights(run))
    return run.without_model() if wrong else run


def _faster_than_weights(run: Assessed) -> Iterator[str]:
    """A chunk is of one step at least, and a step reads the weights.

    Tokens of one step may come as chunks of their own, close together (drafts that nobody tells): then most gaps say
    nothing, and the longer ones are those of steps.
    """
    gpu, arithmetic, tpot_ms = run.deployment.gpu, run.deployment.arithmetic, run.value("tpot", "p50")
    if gpu is None or arithmetic is None or not tpot_ms:
        return
    tokens = tokens_of_chunks(run.frame)[0]
    each = max(1.0, float(tokens.mean()), run.speculation.tokens_per_step) if len(tokens) else 1.0
    step_s = max(tpot_ms * each, run.value("icl", "p90") or 0.0) / 1000
    least_s = tpot_floor(arithmetic, gpu, 1, 1).seconds
    if 0 < step_s * THRESHOLDS.possible < least_s:
        yield (
            f"A step takes {step_s * 1000:.3g} ms, and reading the weights once would take {least_s * 1000:.3g} ms: "
            f"{NAMES}"
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


def _too_large(run: Assessed) -> Iterator[str]:
    gpu, arithmetic = run.deployment.gpu, run.deployment.arithmetic
    if gpu is not None and arithmetic is not None and arithmetic.resident_bytes > gpu.memory_bytes:
        yield (
            f"{arithmetic.resident_bytes / GB:,.1f} GB of weights a GPU do not fit into the {gpu.memory_gb:g} GB of "
            f"{gpu.name}: {NAMES}"
        )


def _other_size(run: Assessed) -> Iterator[str]:
    """A config.json that the user gave has another number of parameters than the name that the server goes by."""
    model, section = run.deployment.model, run.deployment.section
    if model is None or section.config is None:
        return
    for name in run.deployment.served:
        told = sizes(name)
        if told and all(max(size / model.params, model.params / size) > APART for size in told):
            yield (
                f"The model of --model-config has {model.params / 1e9:.3g} billion parameters, and the server serves "
                f"{one_line(name, 60)}"
            )
            return


def sizes(name: str) -> list[float]:
    """Parameters as the last part of a model's name tells them, none where it does not."""
    last = name.rstrip("/").rpartition("/")[2].lower()
    return [float(times or 1) * float(size) * 1e9 for times, size in _SIZE.findall(last) if float(size)]


def _apart(rows: Sequence[Share]) -> Iterator[str]:
    """What is modelled, and what the server itself estimates."""
    values = {(row.what, row.how): row.value for row in rows}
    for what in ("mbu", "mfu"):
        ours, theirs = values.get((what, "modelled")), values.get((what, "server"))
        if ours and theirs and max(ours / theirs, theirs / ours) > APART:
            yield (
                f"{what.upper()} is {percent(ours)} as modelled and {percent(theirs)} by the server's own estimate: "
                "the model, its format or the number of GPUs may not be as named"
            )
