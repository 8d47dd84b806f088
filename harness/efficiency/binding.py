"""Which resource binds a run, from the pieces of evidence that were found."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from servemark.harness.efficiency import evidence  # noqa: F401 (its functions register themselves)
from servemark.harness.efficiency.facts import Facts
from servemark.harness.efficiency.pieces import EVIDENCE, Evidence, Resource
from servemark.harness.efficiency.thresholds import THRESHOLDS, Thresholds
from servemark.harness.figures.percent import share as percent

ORDER: tuple[Resource, ...] = ("client", "compute", "capacity", "bandwidth", "queueing")
"""Which of several goes first. Where the client holds the load back, nothing of the server binds. Where arithmetic is
at its limit a larger batch helps nobody; where memory is full, a larger one would use the bandwidth better. A queue is
the reason only where nothing explains it."""


@dataclass(frozen=True, slots=True)
class Tie:
    """What binds nearly as much as the one that was named; `text` has both figures."""

    resource: Resource
    text: str


@dataclass(frozen=True, slots=True)
class Binding:
    """`resource` is "unclear" where no figure speaks; `others` have evidence too."""

    resource: Resource | Literal["unclear"]
    evidence: tuple[Evidence, ...]
    others: tuple[tuple[Resource, tuple[Evidence, ...]], ...]
    tie: Tie | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "resource": self.resource,
            "evidence": [asdict(each) for each in self.evidence],
            "tie": None if self.tie is None else asdict(self.tie),
            "others": [{"resource": name, "evidence": [asdict(each) for each in own]} for name, own in self.others],
        }


def binding(facts: Facts, thresholds: Thresholds = THRESHOLDS) -> Binding:
    found: dict[Resource, list[Evidence]] = {}
    for _name, piece in EVIDENCE.items():
        held = piece.judge(facts, thresholds)
        if held is not None:
            found.setdefault(piece.resource, []).append(held)
    present = [(name, tuple(found[name])) for name in _ordered(found)]
    if not present:
        return Binding("unclear", (), ())
    (first, own), *others = present
    return Binding(first, own, tuple(others), _tie(first, facts, thresholds))


def _tie(first: Resource, facts: Facts, thresholds: Thresholds) -> Tie | None:
    """Bytes and arithmetic that take about as long at their peaks, and together much of the time."""
    pair: dict[Resource, Resource] = {"bandwidth": "compute", "compute": "bandwidth"}
    if first not in pair or facts.busy is None or facts.prefill_share is None or facts.busy < thresholds.busy:
        return None
    computing = facts.busy * facts.prefill_share
    moving = facts.busy - computing
    if min(moving, computing) < thresholds.tie * max(moving, computing):
        return None
    text = (
        f"Bandwidth {percent(moving)}, arithmetic {percent(computing)} of the time at the published peaks: "
        "neither alone."
    )
    return Tie(pair[first], text)


def _ordered(found: Iterable[Resource]) -> list[Resource]:
    return [name for name in ORDER if name in found]
