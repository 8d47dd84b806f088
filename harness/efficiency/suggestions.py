"""What the literature suggests for a run's bottleneck: one decorated function each, none without its figure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from servemark.harness.efficiency.binding import Binding
from servemark.harness.efficiency.facts import Facts
from servemark.harness.efficiency.thresholds import THRESHOLDS, Thresholds
from servemark.harness.registry import Registry


@dataclass(frozen=True, slots=True)
class Trigger:
    """The figure that calls for a suggestion, its value, and the sentence that says what to do."""

    figure: str
    value: float
    text: str


Judge = Callable[[Facts, str, Thresholds], Trigger | None]
"""(facts, the binding resource, thresholds) -> the figure, or None where the suggestion does not apply."""


@dataclass(frozen=True, slots=True)
class Idea:
    """`source` is where it is shown to work: a paper or documentation, and its year."""

    source: str
    judge: Judge


IDEAS: Registry[Idea] = Registry("suggestion")


def idea(code: str, source: str) -> Callable[[Judge], Judge]:
    def add(judge: Judge) -> Judge:
        IDEAS.register(code)(Idea(source, judge))
        return judge

    return add


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
    from servemark.harness.efficiency import ideas as _  # noqa: F401 (its functions register themselves)

    made = []
    for code, each in IDEAS.items():
        trigger = each.judge(facts, found.resource, thresholds)
        if trigger is not None:
            made.append(Suggestion(code, trigger.text, trigger.figure, trigger.value, each.source))
    return [first for first in made if first.code == "client_first"] or made
