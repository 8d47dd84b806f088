"""One look at every row of a data set before a run: which can be sent, and what the result says of the others."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from servemark.harness.plan.bad_rows import BadRows, counted
from servemark.harness.plan.lengths import Lengths
from servemark.workloads.datasets.counting import TextCounter, at_most
from servemark.workloads.datasets.dialogues import Dialogue, Exchange
from servemark.workloads.datasets.rows import Rows

UNKNOWN_OUTPUT_TOKENS = 256
"""Asked of an answer whose length neither the data nor the workload tells."""
MOST_CLASSES = 32
"""Each has rows of its own in the result."""


Count = Callable[[str], int]
"""Tokens of a text."""


class Limits(Protocol):
    """What of a data set's section is about lengths."""

    output_tokens: Lengths | None
    min_input_tokens: int | None
    max_input_tokens: int | None
    max_output_tokens: int | None

    def dialogue(self, rows: Rows, row: int) -> Dialogue: ...


@dataclass(slots=True)
class Survey:
    """What was found so far."""

    rows: int = 0
    bad: BadRows = field(default_factory=BadRows)
    outside: Counter[str] = field(default_factory=Counter)
    untold: int = 0
    classes: set[str] = field(default_factory=set)
    kept: array[int] = field(default_factory=lambda: array("Q"))

    def take(self, row: int, item: Dialogue, outside: str | None) -> None:
        """A row that can be read; `outside` says which limit it is beyond."""
        if outside is not None:
            self.outside[outside] += 1
            return
        if len(self.classes) <= MOST_CLASSES:
            self.classes.add(item.class_)
        self.untold += any(each.answer is None and each.output_tokens is None for each in item.exchanges[item.sent :])
        self.kept.append(row)

    def notes(self) -> Iterator[str]:
        yield from self.bad.note(self.rows)
        yield from (f"{count:,} of {counted(self.rows, 'row')} left out: {why}" for why, count in self.outside.items())


def surveyed(params: Limits, rows: Rows, counter: TextCounter) -> Survey:
    """Looks at every row."""
    found = Survey(rows=len(rows))
    limited = any((params.min_input_tokens, params.max_input_tokens, params.max_output_tokens))
    for row in range(len(rows)):
        try:
            item = params.dialogue(rows, row)
        except ValueError as error:
            found.bad.add(rows.place(row), error)
            continue
        found.take(row, item, beyond(params, item, counter) if limited else None)
    return found


def beyond(params: Limits, item: Dialogue, counter: TextCounter) -> str | None:
    """Which of the limits a row does not keep to."""
    least, most, most_output = params.min_input_tokens, params.max_input_tokens, params.max_output_tokens
    if least is not None and counter.overhead + first_prompt(item, counter.of) < least:
        return f"the first prompt is below {least} tokens"
    if most is not None and _above(most - counter.overhead, lambda count: longest_prompt(item, count), counter):
        return f"the longest prompt is above {most} tokens"
    if most_output is not None and _above(most_output, lambda count: longest_answer(item, count), counter):
        return f"the longest answer is above {most_output} tokens"
    return None


def _above(limit: int, length: Callable[[Count], int], counter: TextCounter) -> bool:
    """Counting takes far longer than all else, and the bytes often tell that a limit is kept."""
    return length(at_most) > limit and length(counter.of) > limit


def recorded_tokens(exchange: Exchange, count: Count) -> int:
    """How long the recorded answer is, or is taken to be."""
    if exchange.output_tokens is not None:
        return exchange.output_tokens
    return UNKNOWN_OUTPUT_TOKENS if exchange.answer is None else max(1, count(exchange.answer))


def first_prompt(item: Dialogue, count: Count) -> int:
    return sum(map(count, _texts(item, item.sent)))


def longest_prompt(item: Dialogue, count: Count) -> int:
    """The last turn's: it holds all before it, answers as long as the recorded ones included."""
    answers = item.exchanges[item.sent : -1]
    said = sum(map(count, _texts(item, len(item.exchanges) - 1)))
    return said + sum(recorded_tokens(each, count) for each in answers)


def longest_answer(item: Dialogue, count: Count) -> int:
    return max(recorded_tokens(each, count) for each in item.exchanges[item.sent :])


def _texts(item: Dialogue, last: int) -> Iterator[str]:
    """What the prompt of exchange `last` holds, but for the server's own answers."""
    yield from (each.content for each in item.recorded())
    yield from (each.said for each in item.exchanges[item.sent : last + 1])
