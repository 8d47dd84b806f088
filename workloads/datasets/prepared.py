"""The requests, or sessions, that the rows of a data set become."""

from __future__ import annotations

import random
from array import array
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING

from servemark.harness.plan.cache_salt import salt_text
from servemark.harness.plan.draws import uniform
from servemark.harness.plan.sources import Given, Prepared
from servemark.harness.types import Answer, Message, Request, Turn
from servemark.workloads.datasets.beginnings import SAMPLE, Beginnings
from servemark.workloads.datasets.counting import ESTIMATED, TextCounter
from servemark.workloads.datasets.dialogues import Dialogue, Exchange
from servemark.workloads.datasets.rows import Rows
from servemark.workloads.datasets.survey import UNKNOWN_OUTPUT_TOKENS, Survey, recorded_tokens

if TYPE_CHECKING:
    from servemark.workloads.datasets.base import DataSet


class Dialogues(Prepared):
    """The rows of a data set that can be sent."""

    def __init__(self, params: DataSet, given: Given, rows: Rows, counter: TextCounter, survey: Survey) -> None:
        self.params, self.rows = params, rows
        self.data_digest = rows.digest
        self._seeds, self._counter = given.seeds, counter
        salt = given.seeds.salt
        self._front = "" if salt is None else salt_text(given.vocabulary, salt)[0]
        rows.keep(survey.kept)
        self.notes = tuple(self._notes(survey))
        self.size = None if params.loop else len(rows)
        self._dialogue = lru_cache(maxsize=8)(lambda row: params.dialogue(rows, row))
        self._order = lru_cache(maxsize=2)(self._ordered)
        sample = range(0, len(rows), -(-len(rows) // SAMPLE))
        self._beginnings = Beginnings([self._front + self._dialogue(row).opening for row in sample], self._counter.of)

    def _notes(self, survey: Survey) -> Iterator[str]:
        yield from survey.notes()
        count = len(self.rows)
        if survey.untold and self.params.output_tokens is None:
            yield f"{survey.untold} of {count} rows tell no length of an answer: {UNKNOWN_OUTPUT_TOKENS} tokens asked"
        if self.params.loop:
            yield f"the prompts come again after {count}"
        if self._counter.estimates:
            yield ESTIMATED

    def _ordered(self, lap: int) -> array[int]:
        order = array("Q", range(len(self.rows)))
        if self.params.shuffle:
            random.Random(f"{self._seeds.order} {lap}").shuffle(order)  # noqa: S311 (no secret)
        return order

    def _item(self, index: int) -> Dialogue:
        lap, place = divmod(index, len(self.rows))
        return self._dialogue(self._order(lap)[place])

    def lengths(self, index: int) -> tuple[int | None, int | None]:
        request = self.request(index)
        return request.asked_prompt_tokens, request.asked_output_tokens

    def turns(self, index: int) -> int:
        item = self._item(index)
        return len(item.exchanges) - item.sent

    def request(self, index: int) -> Request:
        item = self._item(index)
        said, history = item.exchanges[item.sent], item.recorded()
        if history:  # the salt stands before all
            history = (replace(history[0], content=self._front + history[0].content), *history[1:])
        prompt = said.said if history else self._front + said.said
        return Request(
            index,
            prompt,
            None if history else self._counter.asked(prompt),
            self._output_tokens(said, index, 0),
            class_=item.class_,
            prefixes=self._prefixes(item),
            history=history,
            role=said.role,
        )

    def next_turn(self, index: int, before: Request, answer: Answer) -> Turn | None:
        item, turn = self._item(index), before.turn + 1
        said = item.exchanges[item.sent + turn]
        asked = Message(before.role, str(before.prompt))
        request = replace(
            before,
            prompt=said.said,
            asked_prompt_tokens=None,
            asked_output_tokens=self._output_tokens(said, index, turn),
            history=(*before.history, asked, Message("assistant", answer.text)),
            role=said.role,
        )
        return Turn(request, self.params.think_ns(self._seeds.arrivals, index, turn))

    def _output_tokens(self, said: Exchange, index: int, turn: int) -> int:
        """Drawn; else as recorded."""
        if self.params.output_tokens is None:
            return recorded_tokens(said, self._counter.of)
        return self.params.output_tokens.draw(uniform(self._seeds.lengths, b"output %d" % turn, index))

    def _prefixes(self, item: Dialogue) -> tuple[tuple[str, int], ...]:
        """A template adds something between a system message and the next one too."""
        before = self._counter.lead if item.system is None else self._counter.lead + self._counter.overhead
        return self._beginnings.of(self._front + item.opening, before)
