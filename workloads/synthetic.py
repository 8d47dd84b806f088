"""Synthetic prompts: random common words of an exact token count, every one new."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from servemark.harness.plan.draws import uniform
from servemark.harness.plan.lengths import Lengths, LengthsField
from servemark.harness.plan.sources import SOURCES, Given, Prepared, PromptMaker, PromptSource
from servemark.harness.plan.strict import Count
from servemark.harness.types import Request


@SOURCES.register("synthetic")
class Synthetic(PromptSource):
    """Random words; lengths come from distributions."""

    source: Literal["synthetic"] = "synthetic"
    input_tokens: LengthsField = Field(description="length of the prompt as the server counts it")
    output_tokens: LengthsField = Field(description="length of the answer that is asked for")
    distinct: Count | None = Field(
        default=None, description="repeat so many prompts in turn; without it every prompt is new"
    )

    @property
    def unique(self) -> bool:
        return self.distinct is None

    def prepare(self, given: Given) -> Prepared:
        return _Prepared(self, given)

    def repeats(self, prepared: Prepared) -> Iterator[Request]:
        return (prepared.request(index) for index in range(self.distinct or 0))


class _Prepared(Prepared):
    def __init__(self, params: Synthetic, given: Given) -> None:
        self._input: Lengths = params.input_tokens
        self._output: Lengths = params.output_tokens
        self._distinct = params.distinct
        self._seed = given.seeds.lengths
        self._maker = PromptMaker(given, params.tokens)
        self._maker.check_least("prompts.input_tokens", self._input.most)
        longest = (self._input.most, self._output.most)
        self.most_tokens = None if None in longest else sum(filter(None, longest))

    def _content(self, index: int) -> int:
        return index if self._distinct is None else index % self._distinct

    def lengths(self, index: int) -> tuple[int, int]:
        return (
            self._input.draw(uniform(self._seed, b"input", self._content(index))),
            self._output.draw(uniform(self._seed, b"output", index)),
        )

    def request(self, index: int) -> Request:
        return self._maker.request(index, self._content(index), *self.lengths(index))
