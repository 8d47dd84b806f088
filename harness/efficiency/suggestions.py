"""What the literature suggests for a run's bottleneck: one decorated function each, none without its figure."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from servemark.harness.efficiency import ideas  # noqa: F401 (its functions register themselves)
from servemark.harness.efficiency.binding import Binding
from servemark.harness.efficiency.facts import Facts
from servemark.harness.efficiency.idea import IDEAS
from servemark.harness.efficiency.thresholds import THRESHOLDS, Thresholds


@dataclass(frozen=True, slots=True)
class Suggestion:
    code: str
    text: str
    figure: str
    value: float
    source: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def suggestions(facts: Facts, found: Binding, thresholds: Thresholds = THRESHOLDS) -> list[Suggestion]:
    """In the registry's order. Where the client was at fault, that is said alone: the rest is not the server's."""
    made = []
    for code, each in IDEAS.items():
        trigger = each.judge(facts, found.resource, thresholds)
        if trigger is not None:
            made.append(Suggestion(code, trigger.text, trigger.figure, trigger.value, each.source))
    return [first for first in made if first.code == "client_first"] or made
