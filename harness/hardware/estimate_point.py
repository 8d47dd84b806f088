"""What is asked of deployments, and what one answers for a batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from servemark.harness.hardware.estimate_cycle import Traffic
from servemark.harness.hardware.estimate_layouts import Engine
from servemark.harness.hardware.estimate_reached import Reached, nearest
from servemark.harness.hardware.limits import Bound, Resource
from servemark.harness.hardware.model import Model


@dataclass(frozen=True, slots=True)
class Objectives:
    """Upper limits, None where there is none; `said` is how they were written."""

    ttft_s: float | None = None
    tpot_s: float | None = None
    e2e_s: float | None = None
    said: str = ""

    def meets(self, point: Point) -> bool:
        """What a point does not tell it cannot meet."""
        return all(value is not None and value <= limit for _, limit, value in self.pairs(point))

    def pairs(self, point: Point) -> Iterator[tuple[str, float, float | None]]:
        """Name, limit and value of what is limited."""
        for name, limit, value in (
            ("TTFT", self.ttft_s, point.ttft_s),
            ("TPOT", self.tpot_s, point.tpot_s),
            ("E2E", self.e2e_s, point.e2e_s),
        ):
            if limit is not None:
                yield name, limit, value


@dataclass(frozen=True, slots=True)
class Question:
    """`batches` are requests that run on one server at a time, all its data ranks together.

    `assumed` is an efficiency that nobody measured, for what no run tells; `rate` are requests/s to be served.
    """

    model: Model
    traffic: Traffic
    batches: tuple[int, ...]
    engine: Engine = field(default_factory=Engine)
    objectives: Objectives | None = None
    runs: tuple[Reached, ...] = ()
    assumed: Reached | None = None
    rate: float | None = None

    def meets(self, point: Point) -> bool:
        return self.objectives is None or self.objectives.meets(point)

    def efficiency(self, figure: str, batch: float) -> Reached | None:
        """Of the run that is nearest, else as assumed; None where neither tells `figure` (mbu or mfu)."""
        run = nearest(self.runs, figure, batch)
        return run if run is not None or self.assumed is None else nearest((self.assumed,), figure, batch)

    @property
    def predicts(self) -> bool:
        """Whether throughput can be predicted, for which both are needed."""
        return all(self.efficiency(figure, 1) is not None for figure in ("mbu", "mfu"))


@dataclass(frozen=True, slots=True)
class Point:
    """A deployment with a batch. Rates are of all its servers; of a prediction, `mbu` and `mfu` are those it rests on,
    and `assumed` says which of them nobody measured.

    `step_s` is a decode step with no prompt in it, `tpot_s` the mean with the prompts of the other requests in between.
    `ttft_s` of a bound is that of a prompt that finds the server idle, of a prediction the step that holds the prompt
    beside the tokens of the others. None of them has queueing.
    """

    batch: int
    step_s: float
    tpot_s: float | None
    ttft_s: float | None
    e2e_s: float | None
    output_tps: float | None
    output_tps_per_gpu: float | None
    output_tps_per_user: float | None
    rps: float | None
    usd_per_1m_output: float | None
    usd_per_1m_total: float | None
    usd_per_request: float | None
    mbu: float | None = None
    mfu: float | None = None
    runs: tuple[str, ...] = ()
    assumed: tuple[str, ...] = ()
    binding: Resource | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def resting(point: Point, slow: Reached, busy: Reached | None) -> Point:
    """With the MBU and the MFU that a prediction rests on, the runs that told them, and what is only assumed."""
    told = {"mbu": slow} if busy is None else {"mbu": slow, "mfu": busy}
    return replace(
        point,
        mbu=slow.mbu,
        mfu=None if busy is None else busy.mfu,
        runs=tuple(dict.fromkeys(each.run for each in told.values() if not each.assumed)),
        assumed=tuple(name for name, each in told.items() if each.assumed),
    )


@dataclass(frozen=True, slots=True)
class Row:
    """A batch. Where it does not fit there are no figures, and `least_tensor` ranks would hold it (None: no number)."""

    batch: int
    fits: bool
    least_tensor: int | None
    bound: Point | None
    predicted: Point | None
    step: Bound | None
    throughput_binding: str | None

    def to_json(self) -> dict[str, Any]:
        return {
            "batch": self.batch,
            "fits": self.fits,
            "least_tensor": self.least_tensor,
            "bound": None if self.bound is None else self.bound.to_json(),
            "predicted": None if self.predicted is None else self.predicted.to_json(),
            "step_floor": None if self.step is None else _bound_json(self.step),
            "throughput_binding": self.throughput_binding,
        }


def _bound_json(found: Bound) -> dict[str, Any]:
    return {"bandwidth_s": found.bandwidth_s, "compute_s": found.compute_s, "binding": found.binding}
