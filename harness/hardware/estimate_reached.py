"""The share of the hardware's limits that given runs have reached, taken from what they say of themselves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, log
from typing import Any

from servemark.harness.hardware.model import Model
from servemark.harness.plaintext import one_line

_MOST_SENTENCES = 5


@dataclass(frozen=True, slots=True)
class Reached:
    """By one run: the MBU of its decode steps and the MFU of its prefill, each None where the run does not tell it.

    `batch` is how many requests a decode step had on average, by which the run nearest to a question is found.
    `assumed` is what nobody measured; `doubted` are sentences on the run itself, and on what it was told only now.
    """

    run: str
    mbu: float | None
    mfu: float | None
    batch: float | None = None
    gpu: str | None = None
    model: str | None = None
    weights: str | None = None
    tensor: int | None = None
    valid: bool = True
    simulated: bool = False
    assumed: bool = False
    doubted: tuple[str, ...] = ()

    def doubts(self, model: Model, gpus: Sequence[str], tensor: Sequence[int]) -> Iterator[str]:
        """Why its efficiency may not be that of what is asked about."""
        yield from self.doubted
        if self.simulated:
            yield "its server was simulated, so its efficiency is an assumption and no measurement"
        if not self.valid:
            yield "it is INVALID"
        if self.gpu is not None and (others := [gpu for gpu in gpus if gpu != self.gpu]):
            yield f"it ran on {self.gpu}, not on {', '.join(dict.fromkeys(others))}"
        if self.model is not None and self.model != model.name:
            yield f"it ran {self.model}, not {model.name}"
        if self.weights is not None and self.weights != model.weights:
            yield f"its weights were {self.weights}, not {model.weights}"
        if self.tensor is not None and any(ranks > self.tensor for ranks in tensor):
            yield f"it ran with TP {self.tensor}: what more ranks lose by talking to each other is not in it"


def reached(run: Mapping[str, Any], name: str) -> Reached:
    """From a run.json, which may be anybody's. Raises ValueError with what it lacks."""
    hardware = _part(run, "hardware")
    phases = _part(_part(hardware, "efficiency"), "per_phase")
    decode, prefill = _part(phases, "decode"), _part(phases, "prefill")
    mbu, mfu = _binding(decode, "mbu", "mfu"), _binding(prefill, "mfu", "mbu")
    if mbu is None and mfu is None:
        why = _why(hardware) or next(
            (f": {one_line(each, 200)}" for each in phases.values() if isinstance(each, str)), ""
        )
        raise ValueError(f"it tells neither the MBU of decode steps nor the MFU of prefill{why}")
    deployment = _part(hardware, "deployment")
    tensor = _number(deployment.get("tensor"))
    return Reached(
        run=name,
        mbu=mbu,
        mfu=mfu,
        batch=_number(decode.get("batch")),
        gpu=_text(deployment.get("gpu")),
        model=_text(deployment.get("model")),
        weights=_text(_part(hardware, "model").get("weights")),
        tensor=None if tensor is None else int(tensor),
        valid=_part(run, "verdict").get("valid") is True,
        simulated=run.get("simulated") is True,
        doubted=_sentences(hardware, "doubts"),
    )


def nearest(runs: Sequence[Reached], figure: str, batch: float) -> Reached | None:
    """Of those that tell `figure` (mbu or mfu) the one whose batch is nearest, by ratio; None where none does."""
    telling = [run for run in runs if getattr(run, figure) is not None]
    return min(telling, key=lambda run: _apart(run.batch, batch), default=None)


def _apart(known: float | None, wanted: float) -> float:
    return abs(log(known / wanted)) if known else float("inf")


def _why(hardware: Mapping[str, Any]) -> str:
    first = next(iter((*_sentences(hardware, "doubts"), *_sentences(hardware, "lacks"))), None)
    return f": {first}" if first else ""


def _sentences(hardware: Mapping[str, Any], name: str) -> tuple[str, ...]:
    found = hardware.get(name)
    known = found[:_MOST_SENTENCES] if isinstance(found, list) else ()
    return tuple(one_line(each, 300) for each in known if isinstance(each, str))


def _binding(phase: Mapping[str, Any], name: str, other: str) -> float | None:
    """The share of the resource that bound this phase; of one that did not, it says nothing of what can be reached."""
    found = _share(phase.get(name))
    return None if found is None or found < (_number(phase.get(other)) or 0.0) else found


def _share(value: object) -> float | None:
    """Above 1 something was misnamed, as the GPU or the model: no efficiency to count on."""
    found = _number(value)
    return found if found is not None and found <= 1 else None


def _number(value: object) -> float | None:
    """Above 0."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value) or value <= 0:
        return None
    return float(value)


def _text(value: object) -> str | None:
    return one_line(value, 100) if isinstance(value, str) else None


def _part(value: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = value.get(name)
    return found if isinstance(found, Mapping) else {}
