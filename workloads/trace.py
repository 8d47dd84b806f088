"""Replay of a trace in any table: CSV with a header, or JSON Lines, whose columns the workload names."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import IO, Any, Literal

import msgspec
from pydantic import Field, model_validator

from servemark.harness.plan.data_files import csv_rows, header_of, lines
from servemark.harness.plan.sources import SOURCES, Given, Prepared, PromptMaker
from servemark.harness.plan.strict import Strict
from servemark.harness.types import Request
from servemark.workloads.datasets.counting import ESTIMATED, TextCounter
from servemark.workloads.traces.files import opened, places
from servemark.workloads.traces.labelled import LabelledTable, LabelledTrace, RecordedPrompts
from servemark.workloads.traces.section import TraceSource
from servemark.workloads.traces.selection import Chosen
from servemark.workloads.traces.stamps import Unit, json_reader, reader
from servemark.workloads.traces.table import Table, tokens, whole


class Columns(Strict):
    """Names of the file's columns or fields."""

    time: str = Field(description="when the request came")
    input_tokens: str | None = Field(default=None, description="length of the prompt")
    prompt: str | None = Field(default=None, description="the prompt itself, in place of its length")
    output_tokens: str = Field(description="length of the answer")
    session: str | None = Field(
        default=None,
        description="what the requests of one session have in common: with --balance sticky they go to one replica",
    )

    @model_validator(mode="after")
    def _one_prompt(self) -> Columns:
        if (self.input_tokens is None) == (self.prompt is None):
            raise ValueError("name one of input_tokens and prompt: prompts are made up by length, or sent as they are")
        return self


@SOURCES.register("trace")
class AnyTrace(TraceSource):
    """Times, and lengths or prompts, from the columns that are named."""

    source: Literal["trace"] = "trace"
    columns: Columns = Field(description="names of the file's columns or fields")
    time_unit: Unit = Field(
        default="s", description="what times are in: a number of `s`, `ms`, `us` or `ns`, or `iso` for date and time"
    )
    class_by: str | None = Field(default=None, description="the column whose text is the class of the request")

    @model_validator(mode="after")
    def _prompts_as_they_are(self) -> AnyTrace:
        if self.columns.prompt is None:
            return self
        if self.tokens == "ids":
            raise ValueError("columns.prompt names texts; leave `tokens: ids` out, or name columns.input_tokens")
        if self._limits_input and self.over_limit == "clip":
            raise ValueError("recorded prompts cannot be shortened or lengthened to a limit; set `over_limit: drop`")
        return self

    @property
    def _limits_input(self) -> bool:
        return self.min_input_tokens is not None or self.max_input_tokens is not None

    @property
    def unique(self) -> bool:
        return self.columns.prompt is None

    def read(self, path: Path, given: Given) -> Table:
        table, counter = LabelledTable(path), TextCounter(given.vocabulary)
        with opened(path) as file:
            if file.peek(64).lstrip()[:1] == b"{":  # type: ignore[attr-defined]
                self._read_json(table, file, counter)
            else:
                self._read_csv(table, file, counter)
        if self.columns.prompt is not None and counter.estimates:
            table.notes.append(ESTIMATED)
        return table

    def _read_csv(self, table: LabelledTable, file: IO[bytes], counter: TextCounter) -> None:
        names = self._names()
        with closing(csv_rows(file, table.bad, spanning=self.columns.prompt is not None)) as rows:
            found = places(table.path, header_of(table.path, rows), names, self.guess)
            at = dict(zip(names, found, strict=True))
            add = self._adder(table, at.__getitem__, reader(self.time_unit), tokens, counter)
            for line, cells in rows:
                try:
                    add(cells)
                except (ValueError, IndexError) as error:
                    table.bad.add(f"line {line}:", error)

    def _read_json(self, table: LabelledTable, file: IO[bytes], counter: TextCounter) -> None:
        add = self._adder(table, str, json_reader(self.time_unit), whole, counter)
        decode = msgspec.json.Decoder(dict[str, Any]).decode
        for number, line in lines(file):
            try:
                add(decode(line))
            except KeyError as error:
                table.bad.add(f"line {number}:", f"there is no {error}")
            except (ValueError, RecursionError) as error:
                table.bad.add(f"line {number}:", error)

    def _names(self) -> list[str]:
        """The columns that are read."""
        found = self.columns
        named = (found.time, found.input_tokens, found.prompt, found.output_tokens, found.session, self.class_by)
        return [name for name in dict.fromkeys(named) if name is not None]

    def _adder(
        self,
        table: LabelledTable,
        key: Callable[[str], Any],
        at_ns: Callable[[Any], int],
        count: Callable[[Any], int],
        counter: TextCounter,
    ) -> Callable[[Any], None]:
        """What adds a row; values stand under `key` of their names. It raises ValueError, and adds nothing then."""
        time, answer = key(self.columns.time), key(self.columns.output_tokens)
        length, prompt, session, label = (
            None if name is None else key(name)
            for name in (self.columns.input_tokens, self.columns.prompt, self.columns.session, self.class_by)
        )
        limited = self._limits_input

        def add(row: Any) -> None:
            when, answered = at_ns(row[time]), count(row[answer])
            text = None if prompt is None else prompt_of(row[prompt])
            class_ = None if label is None else row[label]
            owner = None if session is None else row[session]
            if text is None:
                table.add(when, count(row[length]), answered)
            else:
                table.add(when, counter.overhead + counter.of(text) if limited else 1, answered)
                table.texts.add(text)
            if label is not None:
                table.classes.add(class_)
            if session is not None:
                table.sessions.add(owner)

        return add

    def made(self, given: Given, maker: PromptMaker, table: Table, chosen: Chosen) -> Prepared:
        assert isinstance(table, LabelledTable)
        if self.columns.prompt is None:
            return LabelledTrace(maker, chosen, table)
        return RecordedPrompts(maker, chosen, table, given)

    def repeats(self, prepared: Prepared) -> Iterator[Request]:
        return prepared.repeated() if isinstance(prepared, RecordedPrompts) else iter(())


def prompt_of(value: object) -> str:
    """Raises ValueError where it is no text that can be sent."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{value!r:.40} is no prompt")
    value.encode()  # a lone surrogate stands for bytes that are no UTF-8
    return value
