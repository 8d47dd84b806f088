"""Plain text: each line, paragraph or file is a prompt; or its lines are put together to prompts of asked lengths."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from typing import Any, Literal

from pydantic import Field, model_validator

from servemark.harness.errors import BadInput
from servemark.harness.plan.cache_salt import salt_text, salted
from servemark.harness.plan.draws import uniform
from servemark.harness.plan.lengths import Lengths, LengthsField
from servemark.harness.plan.sources import SOURCES, Given, Prepared
from servemark.harness.types import Request
from servemark.workloads.datasets.base import DataSet
from servemark.workloads.datasets.counting import ESTIMATED, TextCounter
from servemark.workloads.datasets.dialogues import Dialogue, of_turns
from servemark.workloads.datasets.rows import Rows, Unit, open_text
from servemark.workloads.datasets.survey import UNKNOWN_OUTPUT_TOKENS


@SOURCES.register("text")
class Text(DataSet):
    """Prompts from a file of text."""

    source: Literal["text"] = "text"
    unit: Unit = Field(default="line", description="what is one prompt; blank lines part paragraphs and are no prompts")
    input_tokens: LengthsField | None = Field(
        default=None,
        description="in place of `unit`: put lines of the text together, in random order (seed `prompts`), to prompts "
        "of this length, as the sonnet data set of vLLM's benchmark does",
    )

    @model_validator(mode="after")
    def _units_or_lengths(self) -> Text:
        beside = {"unit", "min_input_tokens", "max_input_tokens", "max_output_tokens", "shuffle", "loop"}
        given = sorted(beside & self.model_fields_set)
        if self.input_tokens is not None and given:
            raise ValueError(f"with input_tokens prompts are put together anew; leave out {', '.join(given)}")
        return self

    @property
    def finite(self) -> bool:  # type: ignore[override]
        return self.input_tokens is None and not self.loop

    @property
    def unique(self) -> bool:
        """Lines that are put together come again, at the beginnings of prompts too."""
        return self.input_tokens is None and super().unique

    def repeats(self, prepared: Prepared) -> Iterator[Request]:
        return prepared.lines() if isinstance(prepared, PutTogether) else super().repeats(prepared)

    def prepare(self, given: Given) -> Prepared:
        return super().prepare(given) if self.input_tokens is None else PutTogether(self, self.input_tokens, given)

    def rows(self, given: Given) -> Rows:
        return open_text(self.file(given), self.unit, self.missing)

    def dialogue(self, rows: Rows, row: int) -> Dialogue:
        return of_turns([rows.text(row)])

    def read(self, row: dict[str, Any]) -> Dialogue:
        raise NotImplementedError("rows of a text are no objects")


class PutTogether(Prepared):
    """Random lines of a text, as many as an asked length takes; the last one ends where the length does."""

    def __init__(self, params: Text, lengths: Lengths, given: Given) -> None:
        self._lines = open_text(params.file(given), "line", params.missing)
        if not len(self._lines):
            raise BadInput(f"{self._lines.path}: the file holds no text; see that it is the whole file")
        self.data_digest = self._lines.digest
        self._input, self._output = lengths, params.output_tokens
        self._seeds = given.seeds
        self._seed = salted(given.seeds.prompts, given.seeds.salt)
        self._front = "" if given.seeds.salt is None else salt_text(given.vocabulary, given.seeds.salt)[0]
        self._counter = TextCounter(given.vocabulary)
        self._tokens = lru_cache(maxsize=4096)(lambda line: self._counter.of(self._lines.text(line) + "\n"))
        least = self._counter.overhead + 1
        if lengths.most is not None and lengths.most < least:
            raise BadInput(
                f"prompts.input_tokens: {lengths.most} tokens are asked, but what the server adds and a word take "
                f"{least}; ask for at least {least}, or use endpoint completions"
            )
        told = [f"no lengths of answers are known: {UNKNOWN_OUTPUT_TOKENS} tokens are asked"]
        self.notes = (*(told if self._output is None else []), *([ESTIMATED] if self._counter.estimates else []))

    def lengths(self, index: int) -> tuple[int | None, int | None]:
        drawn = self._input.draw(uniform(self._seeds.lengths, b"input", index))
        if self._output is None:
            return drawn, UNKNOWN_OUTPUT_TOKENS
        return drawn, self._output.draw(uniform(self._seeds.lengths, b"output", index))

    def request(self, index: int) -> Request:
        input_tokens, output_tokens = self.lengths(index)
        wanted = max(1, (input_tokens or 0) - self._counter.overhead)
        lines = self._drawn(index, wanted)
        text = self._cut(self._front + "\n".join(map(self._lines.text, lines)), wanted)
        return self._beginning_with(lines[0], replace(self._of(text), index=index, asked_output_tokens=output_tokens))

    def lines(self) -> Iterator[Request]:
        """Every line by itself: what the prompts begin with."""
        found = (self._of(self._front + self._lines.text(line)) for line in range(len(self._lines)))
        return (self._beginning_with(line, request) for line, request in enumerate(found))

    def _of(self, text: str) -> Request:
        return Request(0, text, self._counter.asked(text), 1)

    def _beginning_with(self, line: int, request: Request) -> Request:
        tokens = self._counter.lead + self._counter.of(self._front) + self._tokens(line)
        return replace(request, prefixes=((f"line {line}", min(tokens, request.asked_prompt_tokens or tokens)),))

    def _drawn(self, index: int, wanted: int) -> list[int]:
        """Lines that hold so many tokens or more."""
        lines: list[int] = []
        held = 0
        while held < wanted + len(lines):  # where two lines meet, a token may be spared
            draw = uniform(self._seed, b"line %d" % len(lines), index)
            lines.append(int(draw * len(self._lines)))
            held += self._tokens(lines[-1])
        return lines

    def _cut(self, text: str, wanted: int) -> str:
        """The longest beginning that ends with a word and takes at most so many tokens; the first word at least."""
        ends = [place for place, letter in enumerate(text) if letter.isspace() and place] + [len(text)]
        low, high = 0, len(ends) - 1
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self._counter.of(text[: ends[middle]]) <= wanted else (low, middle - 1)
        return text[: ends[low]].strip()
