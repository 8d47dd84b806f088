"""What a suggestion is made of: one decorated function each, with the figure that calls for it and its source."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from servemark.harness.efficiency.facts import Facts
from servemark.harness.efficiency.thresholds import Thresholds
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
