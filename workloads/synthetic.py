"""Synthetic prompts: random common words of an exact token count, every one new or with a beginning of others."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import ConfigDict, Field, model_validator

from servemark.harness.plan.draws import uniform
from servemark.harness.plan.lengths import Both, LengthsField, PairsField, both_of_text, drawn_apart
from servemark.harness.plan.shared import SAMPLE, Beginning, Pool, SharedPrefix, tail_tokens
from servemark.harness.plan.sources import SOURCES, Given, Prepared, PromptMaker, PromptSource
from servemark.harness.plan.strict import Count, at_key, either
from servemark.harness.plan.vocabulary import Segment
from servemark.harness.types import Request


@SOURCES.register("synthetic")
class Synthetic(PromptSource):
    """Random words; lengths come from distributions."""

    model_config = ConfigDict(json_schema_extra=either(("input_tokens", "output_tokens"), ("lengths",)))

    source: Literal["synthetic"] = "synthetic"
    input_tokens: LengthsField | None = Field(default=None, description="length of the prompt as the server counts it")
    output_tokens: LengthsField | None = Field(default=None, description="length of the answer that is asked for")
    lengths: PairsField | None = Field(
        default=None,
        description="in place of both: pairs of lengths, or a short text, as D(100,1000) or N(480,240)/(300,150)",
    )
    distinct: Count | None = Field(
        default=None, description="repeat so many prompts in turn; without it every prompt is new"
    )
    shared_prefix: SharedPrefix | None = Field(
        default=None, description="what prompts begin with alike, as part of input_tokens; null: nothing"
    )

    @model_validator(mode="before")
    @classmethod
    def _spell_out(cls, data: Any) -> Any:
        """Lengths in short are those of input and output."""
        if not isinstance(data, dict) or not isinstance(data.get("lengths"), str):
            return data
        try:
            both = both_of_text(data["lengths"])
        except ValueError as error:
            raise at_key("lengths", str(error), data["lengths"]) from None
        beside = [name for name in _SIDES if data.get(name) is not None]
        if beside:
            raise at_key("lengths", f"{' and '.join(beside)} stands here too; keep one of the two", data["lengths"])
        return {**data, **dict(zip(_SIDES, both, strict=True)), "lengths": None}

    @model_validator(mode="after")
    def _lengths_once(self) -> Synthetic:
        missing = [name for name in _SIDES if getattr(self, name) is None]
        if self.lengths is None and missing:
            raise ValueError(f"{missing[0]} is missing; add `{missing[0]}:`, as 500 or uniform(100, 200)")
        if self.lengths is not None and len(missing) < 2:
            raise ValueError("lengths stands for input_tokens and output_tokens; keep it, or the two")
        return self

    @property
    def both(self) -> Both:
        """Lengths of prompts and answers."""
        if self.lengths is not None:
            return self.lengths.both()
        assert self.input_tokens is not None
        assert self.output_tokens is not None
        return drawn_apart(self.input_tokens, self.output_tokens)

    @property
    def unique(self) -> bool:
        return self.distinct is None and self.shared_prefix is None

    def prepare(self, given: Given) -> Prepared:
        return _Prepared(self, given)

    def repeats(self, prepared: Prepared) -> Iterator[Request]:
        assert isinstance(prepared, _Prepared)
        if self.distinct is not None:
            return (prepared.request(index) for index in range(self.distinct))
        return prepared.beginnings()


_SIDES = ("input_tokens", "output_tokens")


class _Prepared(Prepared):
    def __init__(self, params: Synthetic, given: Given) -> None:
        self._both = params.both
        self._distinct = params.distinct
        self._seed = given.seeds.lengths
        self._maker = PromptMaker(given, params.tokens)
        self._maker.check_least("prompts.input_tokens", self._both.input.most)
        self.most_tokens = self._both.most_tokens
        self._pool: Pool | None = None
        if params.shared_prefix is not None:
            tail = 0 if params.tokens == "ids" else tail_tokens(given.vocabulary)
            self._pool = Pool(params.shared_prefix, given, tail, self._both.input, "prompts.shared_prefix")
            self.notes = self._pool.notes(
                self.lengths(index)[0] for index in range(min(SAMPLE, params.distinct or SAMPLE))
            )

    def _content(self, index: int) -> int:
        return index if self._distinct is None else index % self._distinct

    def lengths(self, index: int) -> tuple[int, int]:
        u_input = uniform(self._seed, b"input", self._content(index))
        return self._both.draw(u_input, uniform(self._seed, b"output", index))

    def request(self, index: int) -> Request:
        content, (input_tokens, output_tokens) = self._content(index), self.lengths(index)
        begun = self._pool.of(content, input_tokens) if self._pool is not None else None
        if begun is None:
            return self._maker.request(index, content, input_tokens, output_tokens)
        return self._after(begun, index, Segment(content, input_tokens - begun.tokens), output_tokens)

    def beginnings(self) -> Iterator[Request]:
        """One prompt for each of the pool."""
        for begun, own in self._pool.warming() if self._pool is not None else ():
            yield self._after(begun, begun.member, own, 1)

    def _after(self, begun: Beginning, index: int, own: Segment, output_tokens: int) -> Request:
        return self._maker.of_segments(index, (begun.segment, own), output_tokens, begun.prefixes)
